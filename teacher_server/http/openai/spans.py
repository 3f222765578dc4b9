"""Tokens and the text that they stand for, cut where a stop text begins.

The teacher knows token ids alone, and ends at those. A stop that is a text is looked for here, in an answer that is
whole: what stands before the first of them is the answer, and the tokens that begin before it are its tokens. A stop
may begin within a token; that token stays, for its log-probability is of all of it, and its text is cut.

The bytes are searched, not the characters: UTF-8 begins nowhere within a character, and pieces need not end with one.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens and their text. `parts` are the characters that each token completes; together they are the text.

    `stopped` tells that a stop text ended it.
    """

    token_ids: tuple[int, ...]
    parts: tuple[str, ...]
    stopped: bool = False

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.parts)

    def offsets(self, *, start: int = 0) -> list[int]:
        """Where each token begins, in characters from `start` on; within a character, where that begins."""
        places = []
        for part in self.parts:
            places.append(start)
            start += len(part)
        return places


def cut_at(token_ids: Sequence[int], pieces: Sequence[bytes], *, stops: Sequence[str] = ()) -> Span:
    """The tokens up to the first place where one of `stops` begins; `pieces` are the bytes of each token."""
    whole = b"".join(pieces)
    found = [at for at in (whole.find(stop.encode()) for stop in stops) if at >= 0]
    size = min(found, default=len(whole))
    begins = list(accumulate(map(len, pieces), initial=0))
    kept = bisect_left(begins, size) if found else len(pieces)
    return Span(tuple(token_ids[:kept]), tuple(_characters(pieces[:kept], size=size)), stopped=bool(found))


def _characters(pieces: Sequence[bytes], *, size: int) -> Iterator[str]:
    """The characters that each piece completes, of the first `size` bytes; the last piece ends whatever is open."""
    decoder, left = codecs.getincrementaldecoder("utf-8")(errors="replace"), size
    for at, piece in enumerate(pieces, 1):
        yield decoder.decode(piece[:left], final=at == len(pieces))
        left = max(left - len(piece), 0)
