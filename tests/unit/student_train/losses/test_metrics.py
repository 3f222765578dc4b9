"""What is measured beside the loss, from the pieces that a chunk leaves behind."""

from __future__ import annotations

import math

import pytest
import torch

from student_train.losses.metrics import METRICS, cross_entropy, means, only, plain_sums, position_metrics, replaced
from student_train.losses.targets import SparseTargets

KEPT, REST = torch.tensor([[0.5, 0.25], [0.25, 0.25]]).double().log(), torch.tensor([0.25, 0.5]).double().log()
"""The student's log-probabilities of two kept tokens and of all others together."""

BEST_REST = torch.tensor([0.125, 0.5]).double().log()


def test_sums_become_means_under_their_tracking_names() -> None:
    sums = [0.0] * len(METRICS)
    sums[METRICS.index("loss")], sums[METRICS.index("ce")] = 3.0, 8.0
    assert means("dev", sums, known={"ce": 4, "loss": 4}) == {"dev/ce": 2.0, "dev/loss": 0.75}


def test_plain_text_tells_its_cross_entropy_alone() -> None:
    sums = torch.arange(1.0, len(METRICS) + 1)
    found = plain_sums(sums)
    assert float(found[METRICS.index("pretrain")]) == float(sums[METRICS.index("ce")])
    assert int((found != 0).sum()) == 1


def test_cross_entropy_takes_unnormalised_logits() -> None:
    label = torch.tensor([0.125, 0.5]).double().log()
    expected = [math.log(8), math.log(2)]
    assert cross_entropy(KEPT + 3.0, REST + 3.0, label + 3.0).tolist() == pytest.approx(expected)


def scored() -> SparseTargets:
    logprobs = torch.tensor([[0.5, 0.25], [0.5, 0.25]]).double().log()
    return SparseTargets(torch.tensor([[7, 3], [7, 3]]), logprobs, torch.full((2,), 0.25).double().log())


def test_scored_targets_by_hand() -> None:
    label = torch.tensor([0.25, 0.5]).double().log()
    found = position_metrics(KEPT, REST, best_rest=BEST_REST, label=label, targets=scored())
    assert {name: values.tolist() for name, values in found.items()} == {
        "accuracy": [0.0, 1.0],  # another kept token is likelier; the label is the best of the rest
        "agreement": [1.0, 0.0],
        "forward_kl": pytest.approx([0.0, 0.5 * math.log(2) + 0.25 * math.log(0.5)]),
        "reverse_kl": pytest.approx([0.0, 0.25 * math.log(0.5) + 0.5 * math.log(2)]),
        "teacher_mass": pytest.approx([0.75, 0.75]),
        "student_tail": pytest.approx([0.25, 0.5]),
    }


def test_draws_allow_agreement_with_the_token_drawn_most_often() -> None:
    drawn = SparseTargets.drawn(torch.tensor([[7, 3], [7, 3]]), torch.tensor([[1, 2], [3, 1]]))
    found = position_metrics(KEPT, REST - 9, best_rest=BEST_REST - 9, label=None, targets=drawn)
    assert found.keys() == {"agreement"} and found["agreement"].tolist() == [0.0, 1.0]


def test_text_alone_allows_accuracy() -> None:
    found = position_metrics(KEPT, REST, best_rest=BEST_REST, label=KEPT[:, 0], targets=None)
    assert found.keys() == {"accuracy"} and found["accuracy"].tolist() == [1.0, 0.0]


def test_sums_are_put_in_the_place_of_others_and_left_out_by_name() -> None:
    sums = torch.arange(1.0, len(METRICS) + 1, dtype=torch.float64)
    changed = replaced(sums, ce=torch.tensor(0.5, requires_grad=True))
    assert changed[METRICS.index("ce")] == 0.5 and changed.sum() == sums.sum() - 1.5 and not changed.requires_grad
    kept = only(("loss", "ce"), sums)
    assert kept.tolist() == [1.0, 2.0] + [0.0] * (len(METRICS) - 2)
