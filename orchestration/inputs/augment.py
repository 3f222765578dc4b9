"""Rows changed by rules, so that a teacher labels more texts than there are (Tang et al. 2019, arXiv 1903.12136).

Every word of a text becomes, by one draw u, the mask token (u < mask), another word of the same part of speech
(u < mask + same_part), or stays; then, by another draw, one to five words that follow each other stand for the whole
text. Other words come from all rows that are changed, as often as they stand there.

What comes of a row depends on the seed, the row's own words, the number of the copy and those other words, not on the
order of the rows. A row that comes out as one that is there already, or of masks alone, is dropped and counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from configs import ConfigError
from configs.task_experiment import RuleAugmentation

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
    """The rows that came of it, in the order of theirs, copy after copy; `twice` and `empty` ones were dropped."""

    rows: tuple[Row, ...]
    twice: int
    empty: int


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
    found = [[_words(row[field]) for field in texts.fields] for row in rows]
    pool = _Pool(found, parts) if rules.same_part and parts is not None else None
    seen = {_key(words) for words in found}
    made: list[Row] = []
    twice = empty = 0
    for row, words in zip(rows, found, strict=True):
        said = [() if pool is None else pool.parts(each) for each in words]
        for copy in range(rules.copies):
            random = _random(rules.seed, copy, words)
            changed = [
                _changed(each, part, rules=rules, mask=mask, pool=pool, random=random)
                for each, part in zip(words, said, strict=True)
            ]
            key = _key([each.words for each in changed])
            if all(word == mask for each in changed for word in each.words):
                empty += 1
            elif key in seen:
                twice += 1
            else:
                seen.add(key)
                made.append(_rewritten(row, changed, texts=texts))
    return Changed(tuple(made), twice, empty)


@dataclass(frozen=True, slots=True)
class _Text:
    """Changed words, which are those from `start` on of the original."""

    words: Words
    start: int


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
) -> _Text:
    found = list(words)
    for at, draw in enumerate(random.random(len(words))):
        if draw < rules.mask and mask is not None:
            found[at] = mask
        elif draw < rules.mask + rules.same_part and pool is not None:
            found[at] = pool.other(words[at], parts[at], random=random)
    if not found or random.random() >= rules.ngram:
        return _Text(tuple(found), 0)
    count = min(int(random.integers(1, LONGEST_NGRAM + 1)), len(found))
    start = int(random.integers(len(found) - count + 1))
    return _Text(tuple(found[start : start + count]), start)


def _rewritten(row: Row, changed: Sequence[_Text], *, texts: Texts) -> Row:
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


def _key(words: Sequence[Words]) -> str:
    return json.dumps(words)


def _random(seed: int, copy: int, words: Sequence[Words]) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps([seed, copy, words]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
