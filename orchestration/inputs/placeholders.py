"""Placeholders for what is private: the same value has the same one wherever it stands.

They are numbered by kind in the order in which values are first met. What they stand for is kept in memory alone, for
as long as the data are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestration.inputs.private_spans import PrivateSpan


class Placeholders:
    """The numbers that values have been given."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def put(self, text: str, spans: Sequence[PrivateSpan]) -> str:
        """The text with a placeholder for each span; spans are in order and do not overlap."""
        parts, at = list[str](), 0
        for span in spans:
            parts += [text[at : span.start], self.of(text, span)]
            at = span.end
        return "".join([*parts, text[at:]])

    def put_in_words(self, words: Sequence[str], spans: Sequence[PrivateSpan]) -> list[str]:
        """As many words, with `spans` of the text that they make with a space between.

        The placeholder of a value of several words stands for each of them: the tag of a word stays where it was.
        """
        text, start, found = " ".join(words), 0, list[str]()
        for word in words:
            end = start + len(word)
            inside = [span for span in spans if span.start < end and start < span.end]
            at, parts = start, list[str]()
            for span in inside:
                parts += [text[at : max(span.start, at)], self.of(text, span)]
                at = min(span.end, end)
            found.append("".join([*parts, text[at:end]]))
            start = end + 1
        return found

    def of(self, text: str, span: PrivateSpan) -> str:
        """The placeholder of what stands in a text there."""
        named = span.kind, " ".join(text[span.start : span.end].casefold().split())
        if named not in self._numbers:
            self._last[span.kind] += 1
            self._numbers[named] = self._last[span.kind]
        return f"<{span.kind}_{self._numbers[named]}>"
