"""Rows changed by language models: which words are replaced and by which candidate, and what is written on from where.

`replace_words` is the augmentation of TinyBERT (Jiao et al. 2020, arXiv 1909.10351). As in its published code the
candidates for a word are asked for once, in the text as it was, so that copies cost nothing; the word itself may be
among them. Punctuation at the ends of a word stays, and words of punctuation alone are not replaced.

`write_on` lets a language model continue the first words of a text (after Tang, Lu and Lin 2019, ACL D19-6122).

The models stand behind two protocols (`augment_masked`, `augment_writer`). All that is drawn here depends on the
seed, the row's own words and the number of the copy, not on the order of the rows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from configs.task_data import Continuation, WordReplacement
from orchestration.inputs.augment import ChangedRow, ChangedText, Words, seed_of

RowWords = tuple[Words, ...]
"""The words of each text of a row."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A text of which one word is hidden; the punctuation at its ends is not."""

    words: Words
    at: int

    @property
    def before(self) -> str:
        """The text up to the gap."""
        return " ".join([*self.words[: self.at], _parts(self.words[self.at])[0]])

    @property
    def after(self) -> str:
        """The text behind the gap."""
        return " ".join([_parts(self.words[self.at])[2], *self.words[self.at + 1 :]])

    def filled(self, word: str) -> str:
        """The hidden word replaced by another one, with its punctuation."""
        head, _, tail = _parts(self.words[self.at])
        return f"{head}{word}{tail}"


class Candidates(Protocol):
    """Whoever knows which words may stand in a gap."""

    def likeliest(self, gaps: Sequence[Gap], count: int) -> list[Words]:
        """The `count` likeliest words for each gap, in any order; fewer where it knows no more."""
        ...


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of a text, and the seed of what is written on from it."""

    text: str
    seed: int


class Writer(Protocol):
    """Whoever continues texts."""

    def continued(self, beginnings: Sequence[Beginning], *, max_new_tokens: int, temperature: float) -> list[str]:
        """What comes after each beginning, without it."""
        ...


def replace_words(
    rows: Sequence[RowWords], *, settings: WordReplacement, candidates: Candidates
) -> tuple[ChangedRow, ...]:
    """`settings.copies` copies of every row, in which words are replaced by candidates."""
    drawn = [
        (place, words, _draws(words, settings=settings, copy=copy))
        for place, words in enumerate(rows)
        for copy in range(settings.copies)
    ]
    gaps = list(dict.fromkeys(Gap(words[text], at) for _, words, draws in drawn for text, at, _ in draws))
    known = dict(zip(gaps, candidates.likeliest(gaps, settings.candidates), strict=True))
    made = []
    for place, words, draws in drawn:
        found = [list(each) for each in words]
        for text, at, lot in draws:
            gap = Gap(words[text], at)
            # All candidates are equally likely: sorted, their order cannot hang on the last bit of a logit.
            if choices := sorted(known[gap]):
                found[text][at] = gap.filled(choices[int(lot * len(choices))])
        made.append(ChangedRow(place, tuple(ChangedText(tuple(each)) for each in found), empty=not any(words)))
    return tuple(made)


def write_on(rows: Sequence[RowWords], *, settings: Continuation, writer: Writer) -> tuple[ChangedRow, ...]:
    """`settings.copies` copies of every row, whose texts are written on from their first words; of none stays none.

    A row of whose texts none is written on is empty.
    """
    asked = {
        (place, copy, text): Beginning(
            " ".join(words[: settings.first_words]), seed_of(settings.kind, settings.seed, copy, row, text)
        )
        for place, row in enumerate(rows)
        for copy in range(settings.copies)
        for text, words in enumerate(row)
        if words
    }
    said = writer.continued(
        tuple(asked.values()), max_new_tokens=settings.max_new_tokens, temperature=settings.temperature
    )
    written = {where: (beginning.text, more) for (where, beginning), more in zip(asked.items(), said, strict=True)}
    made = []
    for place, row in enumerate(rows):
        for copy in range(settings.copies):
            parts = [written.get((place, copy, text), ("", "")) for text in range(len(row))]
            texts = tuple(ChangedText(tuple((beginning + more).split())) for beginning, more in parts)
            made.append(ChangedRow(place, texts, empty=not any(more.strip() for _, more in parts)))
    return tuple(made)


def is_of_a_word(character: str) -> bool:
    """Whether a character is a letter, a digit or a mark on one, rather than punctuation."""
    return unicodedata.category(character)[0] in "LMN"


def _draws(words: RowWords, *, settings: WordReplacement, copy: int) -> list[tuple[int, int, float]]:
    """The words that are replaced: (text, place in it, lot in [0, 1) that says by which candidate)."""
    random = np.random.default_rng(seed_of(settings.kind, settings.seed, copy, words))
    found = []
    for text, each in enumerate(words):
        for at, (draw, lot) in enumerate(random.random((len(each), 2)).tolist()):
            if draw < settings.replace and _parts(each[at])[1]:
                found.append((text, at, lot))
    return found


def _parts(word: str) -> tuple[str, str, str]:
    """A word and the punctuation before and after it; of punctuation alone the word in the middle is empty."""
    places = [at for at, character in enumerate(word) if is_of_a_word(character)]
    if not places:
        return word, "", ""
    return word[: places[0]], word[places[0] : places[-1] + 1], word[places[-1] + 1 :]
