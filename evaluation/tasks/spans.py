"""Entities as spans of tokens, written `start end TYPE` with the end excluded.

Tags come in several dialects: IOB1 (B only between neighbours of one type), IOB2 (B at every start), BIOES and BILOU
(S or U alone, E or L at the end). One rule reads them all, that of CoNLL's own evaluation (Tjong Kim Sang and De
Meulder 2003): an entity starts at B, S or U, and wherever the type is not that of an entity still open; it is closed by
E, L, S and U, and by whatever does not go on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STARTS = frozenset("BSU")
ENDS = frozenset("ELSU")
PREFIXES = frozenset("BI") | STARTS | ENDS

NOWHERE = -1
"""Start and end of an entity that an answer names and that does not stand in the row."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Tokens `start` to `end`, excluded, are an entity of `type`."""

    start: int
    end: int
    type: str

    def __str__(self) -> str:
        return f"{self.start} {self.end} {self.type}"

    @property
    def placed(self) -> bool:
        """Whether it stands in the row at all."""
        return self.start != NOWHERE

    def overlaps(self, other: Span) -> bool:
        """Whether they share a token."""
        return self.start < other.end and other.start < self.end


def read_span(text: str) -> Span:
    """The span that `str` wrote."""
    start, end, kind = text.split(" ", 2)
    return Span(int(start), int(end), kind)


def spans_of(tags: Sequence[str]) -> tuple[Span, ...]:
    """The entities of a row's tags, from left to right.

    Raises:
        ValueError: a tag is neither O nor a prefix, a hyphen and a type; it is named.
    """
    spans: list[Span] = []
    start, open_type = 0, None
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = _prefix_and_type(tag, place)
        if open_type is not None and (kind != open_type or prefix in STARTS):
            spans.append(Span(start, place, open_type))
            open_type = None
        if kind is not None and open_type is None:
            start, open_type = place, kind
        if open_type is not None and prefix in ENDS:
            spans.append(Span(start, place + 1, open_type))
            open_type = None
    return tuple(spans)


def _prefix_and_type(tag: str, place: int) -> tuple[str, str | None]:
    if tag == "O":
        return "O", None
    prefix, hyphen, kind = tag.partition("-")
    if prefix not in PREFIXES or not hyphen or not kind:
        raise ValueError(f"tag {place} is {tag!r}: write O, or one of B I E S L U, a hyphen and a type (B-PER)")
    return prefix, kind
