"""How sequences of many lengths are laid into rows of one width, so that little is computed for nothing.

There are two ways. *Packed*: short sequences share a row, one behind the other; position ids that start again at 0 tell
the model where one ends, and it masks attention between them. *Buckets*: a row each, rows of similar length together,
for models that cannot keep packed sequences apart (`student_train.models.decoder.can_pack` finds out by trying).

A layout is a pure function of the lengths: every process can compute the layout of any other without asking.

Shapes: lengths are in tokens that the model reads; a layout names sequences by their position in `lengths`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
Layout = tuple[tuple[int, ...], ...]
"""One micro-batch: for each padded row the sequences in it, in order."""

MASK_COST = 0.04
"""What the mask of packed rows costs, as a share of a step: 3 to 4 % with rows of 128 to 256 tokens (measured on a CPU,
hidden size 576, bfloat16)."""

ATTENTION_WIDTH = 2048
"""The row width at which attention costs as much as everything else (the same measurement; more in larger models)."""

LIKE_LENGTHS = (0.85, 0.7, 0.5, 0.0)
"""How much of the longest sequence's tokens the shortest one of a bucket has at least: the shares that are tried."""

BATCH_COST = 64
"""What a pass over a micro-batch costs besides its tokens, in tokens: forward and backward through six layers of 384
channels take as long for one token as for about so many more (measured on a CPU, bfloat16). Short texts in buckets of
two or three would cost more in passes than they save in padding."""

_WIDTHS = (1.0, 1.5, 2.0, 4.0)
"""Widths of packed rows that are tried, in lengths of the longest sequence."""


def lay_out(lengths: Lengths, *, tokens: int, packs: bool) -> tuple[Layout, ...]:
    """Micro-batches of at most `tokens` padded tokens; a sequence longer than that is one of its own.

    Packed rows are taken where they are less work than a row for each sequence.
    """
    if not len(lengths):
        return ()
    # Every process lays out the rows of all: numbers of numpy, taken one at a time, would be five times as slow.
    each = lengths.tolist()
    order = np.argsort(-lengths, kind="stable").tolist()
    if not packs:
        tried = [_rows_of_one(each, order, tokens=tokens, like=like) for like in LIKE_LENGTHS]
        return min(tried, key=lambda layouts: _padded(layouts, each) + BATCH_COST * len(layouts))
    together = _rows_of_one(each, order, tokens=tokens, like=0.0)
    packed = [_packed(each, order, tokens=tokens, factor=factor) for factor in _WIDTHS]
    best = min(packed, key=lambda layouts: _work(layouts, each))
    return best if _work(best, each) * (1.0 + MASK_COST) < _work(together, each) else together


def padded_tokens(layouts: Sequence[Layout], lengths: Lengths) -> int:
    """Tokens that the model computes for these micro-batches, padding included."""
    return _padded(layouts, lengths.tolist())


def _padded(layouts: Sequence[Layout], lengths: list[int]) -> int:
    return sum(len(layout) * _width(layout, lengths) for layout in layouts)


def _rows_of_one(lengths: list[int], order: list[int], *, tokens: int, like: float) -> tuple[Layout, ...]:
    """A row for each sequence, longest first; no row of a micro-batch is shorter than `like` of its longest."""
    layouts: list[Layout] = []
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        stop = start + max(1, tokens // longest)
        alike = sum(lengths[at] >= like * longest for at in order[start:stop])
        stop = start + max(1, alike)
        layouts.append(tuple((at,) for at in order[start:stop]))
        start = stop
    return tuple(layouts)


def _packed(lengths: list[int], order: list[int], *, tokens: int, factor: float) -> tuple[Layout, ...]:
    """Rows of `factor` times the longest sequence that is left, each micro-batch narrower than the one before.

    First fit, longest first: a sequence goes into the first row that has room for it.
    """
    layouts: list[Layout] = []
    left = order
    while left:
        longest = max(1, lengths[left[0]])
        width = max(longest, min(int(longest * factor), tokens))
        rows: list[list[int]] = [[] for _ in range(max(1, tokens // width))]
        room = [width] * len(rows)
        over: list[int] = []
        start = 0
        while start < len(left):
            # Those before it are longer than any room that is left.
            fits = bisect_left(left, -max(room), lo=start, key=lambda at: -lengths[at])
            over += left[start:fits]
            if fits < len(left):
                length = lengths[left[fits]]
                row = next(number for number, free in enumerate(room) if free >= length)
                rows[row].append(left[fits])
                room[row] -= length
            start = fits + 1
        layouts.append(tuple(tuple(row) for row in rows if row))
        left = over
    return tuple(layouts)


def _work(layouts: Sequence[Layout], lengths: list[int]) -> float:
    """Padded tokens, each with the attention that its row's width costs."""
    widths = [(len(layout), _width(layout, lengths)) for layout in layouts]
    return sum(rows * width * (1.0 + width / ATTENTION_WIDTH) for rows, width in widths)


def _width(layout: Layout, lengths: list[int]) -> int:
    return max(1, *(sum(lengths[at] for at in row) for row in layout))
