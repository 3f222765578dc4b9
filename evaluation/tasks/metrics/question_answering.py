"""Exact match and F1 of extracted answers, as SQuAD 1.1 and 2.0 define them.

Rajpurkar et al. 2016 (1606.05250) and 2018 (1806.03822): lower case, without the punctuation of ASCII, without the
articles of English, single spaces; F1 over the bag of words; the best of the accepted answers. A question without an
answer has the empty answer, and only an empty one is right then.

Beyond SQuAD, and without a difference for text in Latin letters: wide punctuation (。，「」) does not count either, and
every character of a script that puts no space between words is a word.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.results import TaskExample
from evaluation.tasks.metrics.rows import row_sums
from evaluation.words import with_spaces

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)


def question_answering(examples: Sequence[TaskExample]) -> tuple[Measured, ...]:
    """F1 and exact match."""
    f1, exact = [], []
    for example in examples:
        answered = None if example.predicted is None else normalised((*example.predicted, "")[0])
        accepted = _accepted(example.gold)
        exact.append((float(answered in accepted), 1.0))
        f1.append((0.0 if answered is None else max(_f1(answered, gold) for gold in accepted), 1.0))
    return (
        Measured(QA_F1, row_sums(examples, f1, columns=2)),
        Measured(QA_EXACT, row_sums(examples, exact, columns=2)),
    )


def normalised(answer: str) -> str:
    """What is compared of an answer."""
    bare = "".join(character for character in answer.lower() if not _is_punctuation(character))
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _accepted(gold: Sequence[str]) -> list[str]:
    """The accepted answers of which something is left; the empty one where that is none."""
    return [text for text in map(normalised, gold) if text] or [""]


def _f1(answered: str, gold: str) -> float:
    words, gold_words = Counter(with_spaces(answered).split()), Counter(with_spaces(gold).split())
    if not words or not gold_words:
        return float(words == gold_words)
    return 2.0 * (words & gold_words).total() / (words.total() + gold_words.total())


def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return character in _ASCII_PUNCTUATION
    wide = unicodedata.east_asian_width(character) in ("W", "F", "H")
    return wide and unicodedata.category(character).startswith("P")


QA_F1 = Metric("f1", better="higher", unit="fraction", finish=ratio_of)
QA_EXACT = Metric("exact_match", better="higher", unit="fraction", finish=ratio_of)
