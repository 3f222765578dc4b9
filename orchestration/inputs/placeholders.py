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
            parts += [text[at : span.start], self._of(span.kind, text[span.start : span.end])]
            at = span.end
        return "".join([*parts, text[at:]])

    def _of(self, kind: str, value: str) -> str:
        named = kind, " ".join(value.casefold().split())
        if named not in self._numbers:
            self._last[kind] += 1
            self._numbers[named] = self._last[kind]
        return f"<{kind}_{self._numbers[named]}>"
