"""How much of what a model writes stands word for word in the text that it was trained on.

A model that repeats long runs of its training text gives that text away to whoever asks the right thing (Carlini et al.
2021, arXiv 2012.07805). Short runs are everybody's language: counted are the runs of eight words that stand in the
training text, and the longest run of each answer. A teacher that never saw that text is beside it: what both repeat was
the prompt's or the language's. What a word is says `evaluation.words`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.words import words_of

GRAM = 8
"""Words of a run that is too long to be an everyday phrase."""

_END = -1
"""Stands behind every text, and in no run."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of each answer: how many words it has, the longest run in the training text, how many 8-word runs are there."""

    words: tuple[int, ...]
    longest: tuple[int, ...]
    repeated: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Runs of words of one length in some texts: where each begins, and a number that equal runs share."""

    words: NDArray[np.int64]
    begin: NDArray[np.int64]
    number: NDArray[np.int64]

    def longer(self, length: int, *, distinct: int) -> _Runs:
        """The runs of `length` words, one more than before; those that would go beyond their text are gone."""
        last = self.words[self.begin + length - 1]
        inside = last != _END
        return _Runs(self.words, self.begin[inside], self.number[inside] * distinct + last[inside])

    def among(self, numbers: NDArray[np.int64]) -> _Runs:
        """Those whose number is among these, numbered anew by their place."""
        kept = np.isin(self.number, numbers)
        return _Runs(self.words, self.begin[kept], np.searchsorted(numbers, self.number[kept]).astype(np.int64))


def overlap_of(answers: Sequence[str], training: Sequence[str]) -> Overlap:
    """Compare every answer with all training texts; no run goes beyond the end of a text."""
    vocabulary: dict[str, int] = {}
    ours, theirs = _all_runs(answers, vocabulary), _all_runs(training, vocabulary)
    ends = np.flatnonzero(ours.words == _END)
    longest, repeated = (np.zeros(len(answers), dtype=np.int64) for _ in range(2))
    length = 0
    # A run stands in the training text only if all but its last word do, so each round looks at what the last one left.
    while len(ours.begin):
        length += 1
        ours, theirs = (runs.longer(length, distinct=len(vocabulary)) for runs in (ours, theirs))
        common = np.intersect1d(ours.number, theirs.number)
        ours, theirs = ours.among(common), theirs.among(common)
        answer = np.searchsorted(ends, ours.begin)
        longest[answer] = length
        if length == GRAM:
            repeated = np.bincount(answer, minlength=len(answers))
    words = np.diff(ends, prepend=-1) - 1
    return Overlap(tuple(words.tolist()), tuple(longest.tolist()), tuple(repeated.tolist()))


def repeated_share(overlap: Overlap) -> Measured:
    """The part of all 8-word runs of the answers that stand in the training text; a row an answer."""
    runs = np.maximum(np.array(overlap.words, dtype=np.float64) - (GRAM - 1), 0.0)
    sums = np.stack([np.array(overlap.repeated, dtype=np.float64), runs], axis=1)
    return Measured(Metric("repeated_runs", "lower", "fraction", ratio_of), sums)


def longest_run(overlap: Overlap) -> Measured:
    """The longest run of an answer that stands in the training text, in words, on average; a row an answer."""
    longest = np.array(overlap.longest, dtype=np.float64)
    return Measured(
        Metric("longest_run", "lower", "count", ratio_of), np.stack([longest, np.ones(len(longest))], axis=1)
    )


def _all_runs(texts: Sequence[str], vocabulary: dict[str, int]) -> _Runs:
    """The runs of no word yet, one before each word; `vocabulary` is filled with the number of each word."""
    numbers: list[int] = []
    for text in texts:
        numbers += [*(vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text)), _END]
    words = np.array(numbers, dtype=np.int64)
    begin = np.flatnonzero(words != _END).astype(np.int64)
    return _Runs(words, begin, np.zeros(len(begin), dtype=np.int64))
