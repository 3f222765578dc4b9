"""The loss of a position as a formula, and what is known about positions."""

from __future__ import annotations

import math

import pytest
import torch

from configs.errors import ModelError
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms
from student_train.losses.divergences import Measure
from student_train.losses.positions import LossForm, Positions
from student_train.losses.targets import SparseTargets

LABELS = torch.tensor([4, 0])
TARGETS = SparseTargets(
    torch.tensor([[3, 4], [0, 9]]),
    torch.tensor([[0.5, 0.25], [0.25, 0.25]]).double().log(),
    torch.tensor([0.25, 0.5]).double().log(),
)
KEPT, REST, LABEL = (
    torch.tensor([[0.25, 0.25], [0.5, 0.25]]).double().log(),
    torch.tensor([0.5, 0.25]).double().log(),
    torch.tensor([0.25, 0.5]).double().log(),
)
"""Logits that are log-probabilities of the student already."""

FORWARD = [0.5 * math.log(2) + 0.25 * math.log(0.5), 0.25 * math.log(0.5) + 0.5 * math.log(2)]


def forward_kl() -> Measure:
    return Measure.of("forward_kl", tail="bucket", temperature=1.0, parameters={})


def test_the_label_takes_the_place_of_targets() -> None:
    assert Positions(TARGETS, LABELS).ids.tolist() == [[3, 4], [0, 9]]
    assert Positions(None, LABELS).ids.tolist() == [[4], [0]]


def test_some_of_the_positions() -> None:
    terms = PolicyTerms(*torch.arange(6.0).double().reshape(3, 2))
    some = Positions(TARGETS, LABELS, terms)[torch.tensor([False, True])]
    assert some.ids.tolist() == [[0, 9]] and some.labels is not None and some.labels.tolist() == [0]
    assert some.terms is not None and some.terms.advantages.tolist() == [1.0]
    assert Positions(None, LABELS)[slice(0, 1)].ids.tolist() == [[4]]


def test_ids_have_to_lie_in_the_vocabulary() -> None:
    Positions(TARGETS, LABELS).check_ids(vocab=10)
    Positions(None, LABELS[:0]).check_ids(vocab=1)
    with pytest.raises(ModelError, match="token id 9 lies outside the student's vocabulary of 9"):
        Positions(TARGETS, LABELS).check_ids(vocab=9)
    with pytest.raises(ModelError, match="token id -1 lies outside the student's vocabulary of 10"):
        Positions(None, LABELS - 1).check_ids(vocab=10)


def test_divergence_and_cross_entropy_add_up_with_their_weights() -> None:
    form = LossForm(forward_kl(), weight=4.0, ce_weight=0.5)
    rows = {name: values.tolist() for name, values in form.rows(Positions(TARGETS, LABELS), KEPT, REST, LABEL).items()}
    assert rows["divergence"] == pytest.approx(FORWARD)
    assert rows["ce"] == pytest.approx([math.log(4), math.log(2)])
    assert rows["loss"] == pytest.approx([4 * d + 0.5 * ce for d, ce in zip(FORWARD, rows["ce"], strict=True)])


def test_text_alone_has_no_divergence() -> None:
    rows = LossForm(ce_weight=1.0).rows(Positions(TARGETS, LABELS), KEPT, REST, LABEL)
    assert rows.keys() == {"loss", "ce"} and rows["loss"].tolist() == rows["ce"].tolist()


def test_sampled_tokens_weigh_the_divergence_each_for_itself() -> None:
    terms = PolicyTerms(*torch.tensor([[1.0, -1.0], [-1.0, -1.0], [0.5, 2.0]]).double())
    form = LossForm(forward_kl(), weight=3.0, policy=PolicyConfig(importance="none"))
    rows = form.rows(Positions(TARGETS, LABELS, terms), KEPT, REST, LABEL)
    # - A log q(label), and 3 x single weight x divergence.
    assert rows["policy"].tolist() == pytest.approx([math.log(4), -math.log(2)])
    assert rows["loss"].tolist() == pytest.approx(
        [math.log(4) + 3 * 0.5 * FORWARD[0], -math.log(2) + 3 * 2.0 * FORWARD[1]]
    )
