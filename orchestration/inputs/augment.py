"""Rows changed by rules, so that a teacher labels more texts than there are (Tang et al. 2019, arXiv 1903.12136).

Every word of a text becomes, by one draw u, the mask token (u < mask), another word of the same part of speech
(u < mask + same_part), or stays; then, by another draw, one to five words that follow each other stand for the whole
text. Other words come from all rows that are changed, as often as they stand there.

What comes of a row depends on the seed, the row's own words, the number of the copy and those other words, not on the
order of the rows. A row that comes out as one that is there already, or of masks alone, is dropped and counted: that is
`gather`'s, whoever changed the row (`orchestration.inputs.augment_choices` has language models do it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from configs import ConfigError
from configs.task_data import RuleAugmentation

LONGEST_NGRAM = 5

Row = Mapping[str, Any]
Words = tuple[str, ...]


class PartsOfSpeech(Protocol):
    """Whoever tells the part of speech of words in their sentence."""

    def of(self, words: Words) -> Words:
        """One name a word."""
        ...


class HanoverTagger:
    """Parts of speech of English words by HanTa (Wartena 2019), an optional part."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            ConfigError: it is not installed.
        """
        try:
            from HanTa import HanoverTagger as hanta
        except ImportError:
            raise ConfigError(
                "same_part of data.augment needs a tagger of parts of speech, which is not installed: install "
                '"stillroom[augment]", or set same_part: 0'
            ) from None
        self._tagger = hanta.HanoverTagger("morphmodel_en.pgz")

    def of(self, words: Words) -> Words:
        """See `PartsOfSpeech`."""
        return tuple(part for _, _, part in self._tagger.tag_sent(list(words))) if words else ()


@dataclass(frozen=True, slots=True)
class Texts:
    """Which fields of a row are texts (or lists of words), and which one lists the tags of the words, if any does."""

    fields: Words
    tags: str | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The rows that came of it, in the order of theirs, copy after copy; `twice` and `empty` ones were dropped.

    `copies` has for each of their rows what every copy became, by its place among them all: their rows first, then
    those that came of it. A copy that came out as another text is that text; None stands for one that is empty.
    """

    rows: tuple[Row, ...]
    twice: int
    empty: int
    copies: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, slots=True)
class ChangedText:
    """Changed words; their tags are those of the original from its word `start` on."""

    words: Words
    start: int = 0


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """What was made of the texts of a row, which is told by its place; `empty` if that is nothing to learn from."""

    place: int
    texts: tuple[ChangedText, ...]
    empty: bool


def words_of(row: Row, texts: Texts) -> tuple[Words, ...]:
    """The words of each text of a row: what stands between white space, or the members of a list."""
    return tuple(_words(row[field]) for field in texts.fields)


def seed_of(*parts: object) -> int:
    """A seed that depends on all of these, which JSON can say, and on nothing else."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest(), "big")


def gather(rows: Sequence[Row], changed: Iterable[ChangedRow], *, texts: Texts) -> Changed:
    """The rows that were made of `rows`; empty ones, and ones that are there already, are dropped and counted."""
    seen: dict[str, int] = {}
    for place, row in enumerate(rows):
        seen.setdefault(json.dumps(words_of(row, texts)), place)
    made: list[Row] = []
    copies: list[list[int | None]] = [[] for _ in rows]
    twice = empty = 0
    for each in changed:
        key = json.dumps([text.words for text in each.texts])
        if each.empty:
            empty += 1
        elif key in seen:
            twice += 1
        else:
            seen[key] = len(rows) + len(made)
            made.append(_rewritten(rows[each.place], each.texts, texts=texts))
        copies[each.place].append(None if each.empty else seen[key])
    return Changed(tuple(made), twice, empty, tuple(map(tuple, copies)))


def change_by_rules(
    rows: Sequence[Row], *, texts: Texts, rules: RuleAugmentation, mask: str | None, parts: PartsOfSpeech | None
) -> Changed:
    """`rules.copies` changed copies of every row; `mask` is the mask token of whoever reads them.

    Raises:
        ConfigError: words are to be masked and there is no mask token.
    """
    if rules.mask and mask is None:
        raise ConfigError(
            f"data.augment has mask={rules.mask} but the teacher's tokenizer has no mask token and no unknown one: set "
            "mask: 0"
        )
    found = [words_of(row, texts) for row in rows]
    pool = _Pool(found, parts) if rules.same_part and parts is not None else None
    return gather(rows, _by_rules(found, rules=rules, mask=mask, pool=pool), texts=texts)


def _by_rules(
    found: Sequence[tuple[Words, ...]], *, rules: RuleAugmentation, mask: str | None, pool: _Pool | None
) -> Iterator[ChangedRow]:
    for place, words in enumerate(found):
        said = [() if pool is None else pool.parts(each) for each in words]
        for copy in range(rules.copies):
            random = np.random.default_rng(seed_of(rules.seed, copy, words))
            changed = tuple(
                _changed(each, part, rules=rules, mask=mask, pool=pool, random=random)
                for each, part in zip(words, said, strict=True)
            )
            masked = all(word == mask for each in changed for word in each.words)
            yield ChangedRow(place, changed, empty=masked)


class _Pool:
    """All words by part of speech, as often as they stand in the rows."""

    def __init__(self, rows: Sequence[Sequence[Words]], parts: PartsOfSpeech) -> None:
        self._parts = parts
        self._words: dict[str, list[str]] = {}
        for words in (each for row in rows for each in row):
            for word, part in zip(words, parts.of(words), strict=True):
                self._words.setdefault(part, []).append(word)
        for same in self._words.values():
            same.sort()

    def parts(self, words: Words) -> Words:
        return self._parts.of(words)

    def other(self, word: str, part: str, *, random: np.random.Generator) -> str:
        """Another word of this part of speech; the word itself where there is none."""
        others = [each for each in self._words[part] if each != word]
        return others[int(random.integers(len(others)))] if others else word


def _changed(
    words: Words,
    parts: Words,
    *,
    rules: RuleAugmentation,
    mask: str | None,
    pool: _Pool | None,
    random: np.random.Generator,
) -> ChangedText:
    found = list(words)
    for at, draw in enumerate(random.random(len(words))):
        if draw < rules.mask and mask is not None:
            found[at] = mask
        elif draw < rules.mask + rules.same_part and pool is not None:
            found[at] = pool.other(words[at], parts[at], random=random)
    if not found or random.random() >= rules.ngram:
        return ChangedText(tuple(found))
    count = min(int(random.integers(1, LONGEST_NGRAM + 1)), len(found))
    start = int(random.integers(len(found) - count + 1))
    return ChangedText(tuple(found[start : start + count]), start)


def _rewritten(row: Row, changed: Sequence[ChangedText], *, texts: Texts) -> Row:
    """The row with its texts changed, each in the form that it had, and the tags of the words that are left."""
    made = dict(row)
    for field, text in zip(texts.fields, changed, strict=True):
        made[field] = " ".join(text.words) if isinstance(row[field], str) else list(text.words)
    if texts.tags is not None and texts.tags in row:
        (text,) = changed
        tags = _words(row[texts.tags])[text.start : text.start + len(text.words)]
        made[texts.tags] = " ".join(tags) if isinstance(row[texts.tags], str) else list(tags)
    return made


def _words(value: Any) -> Words:
    return tuple(value.split()) if isinstance(value, str) else tuple(map(str, value))
