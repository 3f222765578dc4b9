"""Rows about somebody of the other gender, so that a student learns the same of both (`evaluation.side_effects.swaps`).

A word is swapped for one word, so tags stay beside their words. A row that names nobody comes out as it is, and is
dropped as a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.side_effects.swaps import swapped
from orchestration.inputs.augment import Changed, ChangedRow, ChangedText, Row, Texts, Words, gather, words_of


def change_by_swaps(rows: Sequence[Row], *, texts: Texts) -> Changed:
    """Every row about somebody else."""
    changed = (
        ChangedRow(place, tuple(ChangedText(_swapped(words)) for words in words_of(row, texts)), empty=False)
        for place, row in enumerate(rows)
    )
    return gather(rows, changed, texts=texts)


def _swapped(words: Words) -> Words:
    found = swapped(" ".join(words))
    return words if found is None or any(" " in word for word in words) else tuple(found.split(" "))
