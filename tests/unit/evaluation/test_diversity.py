"""Distinct-n and self-BLEU against counts by hand and against BLEU written out."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from evaluation.diversity import MOST, distinct, diversity, self_bleu


@pytest.mark.parametrize(
    ("answers", "one", "two"),
    [
        # "the cat sat", "the cat ran": 4 of 6 words, 3 of 4 pairs.
        (["the cat sat", "the cat ran"], 4 / 6, 3 / 4),
        (["yes", "yes", "yes"], 1 / 3, math.nan),
        (["a b a b a b"], 2 / 6, 2 / 5),
        # Scripts without spaces are counted by character: 我 爱 猫 我 爱 狗.
        (["我爱猫", "我爱狗"], 4 / 6, 3 / 4),
        (["Да. Нет?", "ДА"], 2 / 3, 1.0),
        (["", "one"], 1.0, math.nan),
        (["", "..."], math.nan, math.nan),
    ],
)
def test_distinct_n_is_the_part_of_n_grams_that_differ(answers: list[str], one: float, two: float) -> None:
    assert distinct(answers, n=1) == pytest.approx(one, nan_ok=True)
    assert distinct(answers, n=2) == pytest.approx(two, nan_ok=True)


def bleu(words: list[str], others: list[list[str]]) -> float:
    """BLEU of one sentence as Papineni et al. define it, over the orders that it has; counts of 0 are halved anew.

    Without a single word in common it is 0.
    """
    if not any(set(words) & set(other) for other in others):
        return 0.0
    precisions, smooth = [], 1.0
    for n in range(1, min(4, len(words)) + 1):
        ours = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
        theirs: Counter[tuple[str, ...]] = Counter()
        for other in others:
            theirs |= Counter(tuple(other[at : at + n]) for at in range(len(other) - n + 1))
        found, total = (ours & theirs).total(), ours.total()
        if found == 0:
            smooth *= 2
        precisions.append(found / total if found else 1 / (smooth * total))
    closest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    penalty = 1.0 if len(words) >= closest else math.exp(1 - closest / len(words))
    return 100 * penalty * math.exp(sum(map(math.log, precisions)) / len(precisions))


def test_self_bleu_is_that_of_the_paper() -> None:
    said = ["the cat sat on the mat", "the cat sat on a chair today", "dogs bark", "the cat ran off"]
    split = [text.split() for text in said]
    expected = [bleu(words, split[:at] + split[at + 1 :]) for at, words in enumerate(split)]
    assert self_bleu(said) == pytest.approx(sum(expected) / 4, rel=1e-6)


def test_the_same_answer_to_everybody_is_a_hundred_and_nothing_shared_is_next_to_nothing() -> None:
    assert self_bleu(["I do not know that."] * 5) == pytest.approx(100.0)
    assert self_bleu(["one two three four", "five six seven eight"]) < 15


@pytest.mark.parametrize("answers", [[], ["alone"], ["alone", ""], ["", "..."]])
def test_self_bleu_of_fewer_than_two_answers_is_undefined(answers: list[str]) -> None:
    assert math.isnan(self_bleu(answers))


def test_more_answers_than_can_be_compared_in_pairs_are_cut() -> None:
    assert self_bleu(["the same words again"] * MOST + ["something else"] * 50) == pytest.approx(100.0)


def test_all_of_it_has_names_and_a_model_that_has_not_answered_has_none() -> None:
    assert diversity(()) == {}
    assert list(diversity(("a b", "a c"))) == ["distinct_1", "distinct_2", "self_bleu"]
