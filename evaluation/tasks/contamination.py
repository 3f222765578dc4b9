"""Test rows that also stand in train, to the letter or nearly.

A row is a copy of another when their words are the same whatever case, width and spaces; it is near when the sets of
their word 3-grams have a Jaccard similarity of at least the threshold. Scripts without spaces have characters for
words. No pair is missed and none is guessed: rare 3-grams are compared first, and two sets that are similar enough
share one among the first few of each (prefix filtering: Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant
2007, https://doi.org/10.1145/1242572.1242591), so that few pairs are compared in full.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evaluation.words import words_of

GRAM = 3
"""Words of a gram. A text of fewer words is one gram."""

_ROUNDING = 1e-9

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """A test row and the train row that is most like it."""

    test_row: int
    train_row: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Test rows with a copy in train, and further ones with a near copy, by their numbers."""

    exact: tuple[Copy, ...]
    near: tuple[Copy, ...]


def same_text(text: str) -> str:
    """What two texts have in common that are copies of each other."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def duplicates(test: Mapping[int, str], train: Mapping[int, str], *, threshold: float) -> Duplicates:
    """Compare the texts of test and train rows; both map row numbers to texts, and empty texts are like no other."""
    known: dict[str, int] = {}
    for row, text in train.items():
        known.setdefault(same_text(text), row)
    keys = {row: same_text(text) for row, text in test.items()}
    exact = {row: known[key] for row, key in keys.items() if key and key in known}
    near = _near({row: text for row, text in test.items() if row not in exact}, train, threshold)
    return Duplicates(exact=tuple(Copy(row, other, 1.0) for row, other in sorted(exact.items())), near=near)


def grams_of(text: str) -> frozenset[Gram]:
    """The word 3-grams of a text."""
    words = words_of(text)
    if len(words) < GRAM:
        return frozenset([tuple(words)] if words else [])
    return frozenset(zip(*(words[start:] for start in range(GRAM)), strict=False))


def _near(test: Mapping[int, str], train: Mapping[int, str], threshold: float) -> tuple[Copy, ...]:
    test_grams = {row: grams_of(text) for row, text in test.items()}
    train_grams = {row: grams_of(text) for row, text in train.items()}
    frequency = Counter(gram for grams in (*test_grams.values(), *train_grams.values()) for gram in grams)
    by_gram: dict[Gram, list[int]] = defaultdict(list)
    for row, grams in train_grams.items():
        for gram in _prefix(grams, frequency, threshold):
            by_gram[gram].append(row)
    found = []
    for row, grams in sorted(test_grams.items()):
        candidates = {other for gram in _prefix(grams, frequency, threshold) for other in by_gram.get(gram, ())}
        best = max(
            (Copy(row, other, _jaccard(grams, train_grams[other])) for other in candidates), key=_order, default=None
        )
        if best is not None and best.similarity >= threshold:
            found.append(best)
    return tuple(found)


def _prefix(grams: Iterable[Gram], frequency: Counter[Gram], threshold: float) -> list[Gram]:
    """The rarest grams, as many as cannot all be missing from a set that is similar enough."""
    rarest_first = sorted(grams, key=lambda gram: (frequency[gram], gram))
    shared_at_least = math.ceil(threshold * len(rarest_first) - _ROUNDING)
    return rarest_first[: len(rarest_first) - shared_at_least + 1]


def _jaccard(one: frozenset[Gram], other: frozenset[Gram]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _order(copy: Copy) -> tuple[float, int]:
    return copy.similarity, -copy.train_row
