"""Entities in the text of an answer: lines `TYPE: words`, looked up in the tokens of the row.

Each line names one entity; bullets, numbers and marks of emphasis around it do not count, nor do lines that begin with
no type of the task (an introduction). Words are looked up from left to right, whatever their case, width and spacing,
at the edges of tokens, and no token is used twice: the second "PER: Ada" is the second Ada of the row. What does not
stand in the row is kept as an entity nowhere (`-1 -1 TYPE`), which counts as answered and wrong. A line that was there
before and finds no further place says nothing new and does not count: small models repeat themselves until the limit.

An answer that is empty or says "none" names no entity. One with lines of which none could be read is not an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import accumulate

from evaluation.tasks.label_names import LabelNames
from evaluation.tasks.spans import NOWHERE, Span

NONE = frozenset({"", "none", "nothing", "no entities", "no entity", "n/a"})
"""What an answer without an entity says, in lower case."""

_AROUND = " \t\r\n\"'`*_•·-–—.,;“”«»()[]"
_NUMBERED = re.compile(r"^\d{1,4}[.)]\s")


def entity_reader(types: LabelNames) -> Callable[[str, Sequence[str]], tuple[str, ...] | None]:
    """How answers of a tagging task are read; types have names as labels have."""

    def read(text: str, tokens: Sequence[str]) -> tuple[str, ...] | None:
        if text.strip(_AROUND).casefold() in NONE:
            return ()
        named = ((types.named(kind), words) for kind, words in map(_type_and_words, text.splitlines()))
        row, written, found = _Row(tokens), False, list[Span]()
        for kind, words in named:
            if kind is None:
                continue
            written = True
            span = row.place(kind, words)
            if span is not None:
                found.append(span)
            if len(found) == len(tokens):  # no row holds more entities
                break
        return tuple(map(str, sorted(found))) if written else None

    return read


def _type_and_words(line: str) -> tuple[str | None, str]:
    kind, colon, words = _NUMBERED.sub("", line.lstrip(_AROUND)).partition(":")
    return (kind.strip(_AROUND) if colon else None), words


class _Row:
    """The letters of a row in one string, and which of its tokens are taken."""

    def __init__(self, tokens: Sequence[str]) -> None:
        folded = [_letters(token) for token in tokens]
        edges = list(accumulate(map(len, folded), initial=0))
        self._letters = "".join(folded)
        self._starts = {at: token for token, at in enumerate(edges[:-1])}
        self._ends = {at: token for token, at in enumerate(edges[1:], start=1)}
        self._taken: set[int] = set()
        self._named: dict[tuple[str, str], bool] = {}
        """Whether there may be another place for an entity that was named before."""

    def place(self, kind: str, words: str) -> Span | None:
        """The entity at the first place where its words stand, as written or without marks, and no token is taken.

        None for one that was named before and has no further place.
        """
        entity = (kind, _letters(words.strip(_AROUND)))
        if not self._named.get(entity, True):
            return None
        found = self._free(kind, words)
        again = entity in self._named
        self._named[entity] = found is not None
        return None if again and found is None else found or Span(NOWHERE, NOWHERE, kind)

    def _free(self, kind: str, words: str) -> Span | None:
        for letters in (_letters(words), _letters(words.strip(_AROUND))):
            at = self._letters.find(letters) if letters else NOWHERE
            while at != NOWHERE:
                start, end = self._starts.get(at), self._ends.get(at + len(letters))
                if start is not None and end is not None and self._taken.isdisjoint(range(start, end)):
                    self._taken.update(range(start, end))
                    return Span(start, end, kind)
                at = self._letters.find(letters, at + 1)
        return None


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
