"""Recurrent students against plain torch, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from task_students import LABELS, NETWORKS, WORDS, rows_of

from student_train.models.recurrent import AdditiveAttention, RecurrentStudent


def made(name: str, **changes: Any) -> RecurrentStudent:
    torch.manual_seed(4)
    settings = {"task": "classification", "labels": LABELS, "vocab": len(WORDS), "embedding_size": 8}
    return RecurrentStudent.of(settings | NETWORKS[name] | changes).eval()


@pytest.mark.parametrize("name", ["lstm", "gru", "attention"])
def test_both_directions_see_a_row_without_its_padding(name: str) -> None:
    student = made(name, task="tagging")
    ids, mask, segments = rows_of([4, 9, 1], rubbish=999)
    with torch.no_grad():
        found = student(ids, mask, segments)
        for row, length in enumerate([4, 9, 1]):
            states, _ = student.network(student.embedding(ids[row : row + 1, :length]))
            torch.testing.assert_close(found[row, :length], student.head(states)[0], rtol=0, atol=1e-6)


def test_the_largest_state_of_a_row_is_pooled() -> None:
    student = made("lstm")
    ids, mask, segments = rows_of([4, 9])
    with torch.no_grad():
        # With all states negative, the zeros at padding would win.
        student.head.weight.copy_(torch.eye(12)[:3])
        student.head.bias.zero_()
        found = student(ids, mask, segments)
        states, _ = student.network(student.embedding(ids[:1, :4]))
    torch.testing.assert_close(found[0], states[0].max(dim=0).values[:3], rtol=0, atol=1e-6)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(2)
    attention, states = AdditiveAttention(4), torch.randn(2, 5, 4)
    valid = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    found = attention(states, valid).detach().numpy()
    weight, bias = (each.detach().numpy() for each in (attention.states.weight, attention.states.bias))
    score = attention.score.weight.detach().numpy()[0]
    for row, length in enumerate([3, 5]):
        own = states[row, :length].numpy()
        raised = np.exp(np.tanh(own @ weight.T + bias) @ score)
        np.testing.assert_allclose(found[row], (raised / raised.sum()) @ own, atol=1e-6)


def test_groups_lead_from_the_top_layer_down() -> None:
    student = made("lstm")
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group} for group in student.groups()]
    assert [len(group) for group in groups] == [2, 8, 8, 1]
    assert all("_l1" in name for name in groups[1]) and all("_l0" in name for name in groups[2])
    assert len(made("attention").groups()[0]) == 5


def test_dropout_acts_in_training_alone() -> None:
    student, rows = made("lstm", dropout=0.5), rows_of([6])
    assert torch.equal(student(*rows), student(*rows))
    student.train()
    assert not torch.equal(student(*rows), student(*rows))


def test_a_tagger_has_nothing_that_pools() -> None:
    assert made("attention", task="tagging").attention is None
