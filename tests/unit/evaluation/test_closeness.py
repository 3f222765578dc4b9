"""Closeness against sums over whole distributions, written out in float64, and against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from belief_builders import WORDS as VOCAB
from belief_builders import beliefs, distributions, random_beliefs
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from evaluation.closeness import (
    BINS,
    COLUMNS,
    LEAST_TAIL_LOGMASS,
    TOP_K,
    TokenBeliefs,
    closeness_of,
    joined,
    length_ratio,
    measured,
    reliability,
)
from evaluation.results import Closeness
from evaluation.text import wording


def values(answers: Iterable[TokenBeliefs]) -> dict[str, float]:
    return {name: each.value for name, each in measured(closeness_of(answers)).items()}


def bare(
    p: NDArray[np.float64], rest_p: NDArray[np.float64], q: NDArray[np.float64], rest_q: NDArray[np.float64]
) -> TokenBeliefs:
    """Rows of which only the divergences are of interest."""
    ids = np.tile(np.arange(p.shape[1]), (len(p), 1))
    return TokenBeliefs(p, rest_p, q, rest_q, q[:, 0], ids[:, 0], ids, ids, q[:, 0])


def full_kl(log_p: NDArray[np.float64], log_q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p ‖ q) of each row over the whole vocabulary."""
    return np.array(
        [sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True)) for p, q in zip(log_p, log_q, strict=True)]
    )


def pairs(lengths: Sequence[int]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return [(distributions(i, rows=n), distributions(100 + i, rows=n)) for i, n in enumerate(lengths)]


def test_divergences_over_the_whole_vocabulary_are_the_plain_sums() -> None:
    sequences = pairs([5, 1, 9])
    metrics = values([beliefs(p, q, k=VOCAB) for p, q in sequences])
    forward = np.concatenate([full_kl(p, q) for p, q in sequences])
    reverse = np.concatenate([full_kl(q, p) for p, q in sequences])
    assert metrics["forward_kl"] == pytest.approx(forward.mean(), rel=1e-12)
    assert metrics["reverse_kl"] == pytest.approx(reverse.mean(), rel=1e-12)
    assert (
        sum(row[COLUMNS.index("tokens")] for row in closeness_of(random_beliefs(i, rows=5) for i in range(3)).sums)
        == 15
    )


def test_the_two_directions_are_not_exchanged() -> None:
    # The student puts no mass to speak of where the teacher has half of its own: only KL(teacher ‖ student) is large.
    p = np.log(np.array([[0.5, 0.5]]))
    q = np.log(np.array([[1 - 1e-6, 1e-6]]))
    metrics = values([bare(p, np.array([-np.inf]), q, np.array([-np.inf]))])
    assert metrics["forward_kl"] == pytest.approx(0.5 * np.log(0.5 / (1 - 1e-6)) + 0.5 * np.log(0.5 / 1e-6))
    assert metrics["reverse_kl"] == pytest.approx((1 - 1e-6) * np.log((1 - 1e-6) / 0.5) + 1e-6 * np.log(1e-6 / 0.5))
    assert metrics["forward_kl"] > 8 * metrics["reverse_kl"]


@given(seed=st.integers(0, 10_000), k=st.integers(1, VOCAB - 1), spread=st.floats(0.1, 5.0))
def test_the_bucket_gives_a_lower_bound(seed: int, k: int, spread: float) -> None:
    p, q = distributions(seed, rows=4, spread=spread), distributions(seed + 1, rows=4, spread=spread)
    metrics = values([beliefs(p, q, k=k)])
    assert -1e-12 <= metrics["forward_kl"] <= full_kl(p, q).mean() + 1e-9
    assert -1e-12 <= metrics["reverse_kl"] <= full_kl(q, p).mean() + 1e-9


@pytest.mark.parametrize("k", [1, 4, VOCAB])
def test_equal_models_differ_by_nothing(k: int) -> None:
    p = distributions(3, rows=6)
    metrics = values([beliefs(p, p, k=k)])
    assert metrics["forward_kl"] == 0.0
    assert metrics["reverse_kl"] == 0.0
    assert metrics["top1_agreement"] == 1.0


def test_an_id_that_neither_side_holds_adds_nothing() -> None:
    # Ids that are only on one of two lists are moved into both buckets, which leaves -inf at their place.
    p = np.array([[np.log(0.6), -np.inf]])
    q = np.array([[np.log(0.3), -np.inf]])
    rest_p, rest_q = np.log(np.array([0.4])), np.log(np.array([0.7]))
    metrics = values([bare(p, rest_p, q, rest_q)])
    assert metrics["forward_kl"] == pytest.approx(0.6 * np.log(0.6 / 0.3) + 0.4 * np.log(0.4 / 0.7))
    assert metrics["reverse_kl"] == pytest.approx(0.3 * np.log(0.3 / 0.6) + 0.7 * np.log(0.7 / 0.4))


def test_a_tail_below_rounding_counts_as_the_floor_on_both_sides() -> None:
    head = np.array([[0.0]])
    tails = np.array([LEAST_TAIL_LOGMASS - 30.0])
    metrics = values([bare(head, np.array([LEAST_TAIL_LOGMASS]), head, tails)])
    assert metrics["forward_kl"] == 0.0
    assert metrics["reverse_kl"] == 0.0


def test_float32_beliefs_are_summed_in_float64() -> None:
    rows = 200_000
    p = np.log(np.array([[0.5, 0.5]])).repeat(rows, axis=0)
    q = np.log(np.array([[0.5001, 0.4999]])).repeat(rows, axis=0)
    none = np.full(rows, -np.inf, dtype=np.float32)
    p32, q32 = p.astype(np.float32), q.astype(np.float32)
    metrics = values([bare(p32, none, q32, none)])
    one = full_kl(p32[:1].astype(np.float64), q32[:1].astype(np.float64))[0]
    assert metrics["forward_kl"] == pytest.approx(one, rel=1e-6)


def test_agreement_and_perplexity_are_token_means() -> None:
    sequences = pairs([2, 8])
    metrics = values(beliefs(p, q, k=3, target=2) for p, q in sequences)
    agreed = np.concatenate([p.argmax(axis=1) == q.argmax(axis=1) for p, q in sequences])
    targets = np.concatenate([q[:, 2] for _, q in sequences])
    assert metrics["top1_agreement"] == pytest.approx(agreed.mean())
    assert metrics["perplexity"] == pytest.approx(np.exp(-targets.mean()))


def test_a_longer_answer_weighs_more() -> None:
    short, long = pairs([1, 30])
    metrics = values(beliefs(p, q, k=VOCAB) for p, q in (short, long))
    means = [full_kl(p, q).mean() for p, q in (short, long)]
    assert metrics["forward_kl"] == pytest.approx((means[0] + 30 * means[1]) / 31)


def test_best_tokens_agree_as_far_as_both_lists_share_them() -> None:
    p, q = distributions(5, rows=40), distributions(6, rows=40)
    best = [[set(np.argsort(-row)[:TOP_K]) for row in each] for each in (p, q)]
    shared = [len(one & other) / TOP_K for one, other in zip(*best, strict=True)]
    assert values([beliefs(p, q, k=8)])["topk_agreement"] == pytest.approx(np.mean(shared))
    # Of a teacher of whom three are kept, three are compared.
    best = [[set(np.argsort(-row)[:3]) for row in each] for each in (p, q)]
    shared = [len(one & other) / 3 for one, other in zip(*best, strict=True)]
    assert values([beliefs(p, q, k=3)])["topk_agreement"] == pytest.approx(np.mean(shared))


def calibrated(seed: int, *, rows: int) -> tuple[TokenBeliefs, NDArray[np.float64], NDArray[np.bool_]]:
    """Beliefs with the confidence of each position, and whether it was right."""
    rng = np.random.default_rng(seed)
    said = beliefs(distributions(seed, rows=rows), distributions(seed + 1, rows=rows, spread=1.5), k=4)
    targets = np.where(rng.random(rows) < 0.4, said.own_ids[:, 0], said.own_ids[:, 1])
    return replace(said, target_ids=targets), np.exp(said.own_best), targets == said.own_ids[:, 0]


def test_calibration_is_that_of_scikit_learn() -> None:
    said, confidence, right = calibrated(3, rows=700)
    metrics = values([said])
    assert metrics["brier"] == pytest.approx(brier_score_loss(right, confidence), rel=1e-9)
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS)
    counts = np.histogram(confidence, bins=BINS, range=(0, 1))[0]
    counts = counts[counts > 0]
    assert metrics["ece"] == pytest.approx((counts * np.abs(accuracy - mean)).sum() / 700, rel=1e-9)
    bins = [each for each in reliability(closeness_of([said])) if each.count]
    assert [each.count for each in bins] == counts.tolist()
    assert [each.accuracy for each in bins] == pytest.approx(accuracy)
    assert [each.confidence for each in bins] == pytest.approx(mean)


def test_calibration_by_hand() -> None:
    """Confidence 0.9 and right three times of four, 0.4 and never right: |3 - 3.6| and |0 - 0.8| of six tokens."""
    confidence = np.log(np.array([0.9, 0.9, 0.9, 0.9, 0.4, 0.4]))
    said = random_beliefs(0, rows=6)
    own = said.own_ids[:, 0]
    targets = np.where([True, True, True, False, False, False], own, said.own_ids[:, 1])
    metrics = values([replace(said, own_best=confidence, target_ids=targets)])
    assert metrics["ece"] == pytest.approx((0.6 + 0.8) / 6)
    assert metrics["brier"] == pytest.approx((3 * 0.01 + 0.81 + 2 * 0.16) / 6)


def test_a_model_that_is_certain_falls_into_the_last_bin() -> None:
    said = replace(random_beliefs(0, rows=2), own_best=np.array([0.0, 1e-7]))
    *others, last = reliability(closeness_of([said]))
    assert (last.low, last.high, last.count) == (14 / 15, 1.0, 2)
    assert all(each.count == 0 and math.isnan(each.confidence) and math.isnan(each.accuracy) for each in others)


def test_cutting_the_tokens_into_other_answers_changes_no_number() -> None:
    p, q = distributions(1, rows=9), distributions(2, rows=9)
    whole = values([beliefs(p, q, k=4)])
    assert values([beliefs(p[:2], q[:2], k=4), beliefs(p[2:], q[2:], k=4)]) == pytest.approx(whole)


def test_a_metric_of_many_draws_is_that_of_each() -> None:
    """What a bootstrap asks for: rows of sums, each with a number of its own."""
    closeness = closeness_of(random_beliefs(seed, rows=5) for seed in range(4))
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 0]])
    for name, each in measured(closeness).items():
        drawn = each.metric.finish(weights @ each.sums)
        assert drawn[0] == pytest.approx(each.value), name
        assert drawn[1] == pytest.approx(float(each.metric.finish(weights[1] @ each.sums))), name
        assert math.isnan(drawn[2]), name


@pytest.mark.parametrize("answers", [[], [beliefs(distributions(0, rows=0), distributions(1, rows=0), k=3)]])
def test_without_a_token_everything_is_undefined(answers: list[TokenBeliefs]) -> None:
    assert set(map(math.isnan, values(answers).values())) == {True}
    assert all(each.count == 0 for each in reliability(closeness_of(answers)))


def test_what_was_not_measured_has_no_number() -> None:
    wrote = wording(["one two"], ["one two three"], written=[2], referenced=[3])
    assert list(measured(wrote)) == ["rouge_l"]
    assert measured(wrote)["rouge_l"].value == pytest.approx(80.0)
    assert length_ratio(wrote) == pytest.approx(2 / 3)
    scored = closeness_of([random_beliefs(1, rows=3)])
    assert math.isnan(length_ratio(scored)) and "rouge_l" not in measured(scored)
    assert reliability(wrote) == ()
    both = joined(scored, wrote)
    assert measured(both).keys() == measured(scored).keys() | measured(wrote).keys()
    assert joined(None, wrote) is wrote


def test_other_answers_cannot_stand_beside_each_other() -> None:
    with pytest.raises(ValueError, match="2 answers and 1 are not the same ones"):
        joined(Closeness(("a",), ((1.0,), (2.0,))), Closeness(("b",), ((1.0,),)))
