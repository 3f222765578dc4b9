"""Losses on hidden tokens, against loops in plain float64 and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import ModelError
from student_train.losses.metrics import METRICS
from student_train.losses.words import WordForm, Words, word_sums

FORM = WordForm(lm_weight=2.0, soft_weight=5.0, temperature=2.0)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def words(count: int, *, seed: int, width: int = 4, vocab: int = 7, rows: int = 7) -> Words:
    return Words(drawn(count, width, seed=seed), drawn(rows, width, seed=seed + 1), drawn(rows, seed=seed + 2), vocab)


def learning(found: Words) -> Words:
    for each in (found.states, found.weight, found.bias):
        assert each is not None
        each.requires_grad_()
    return found


def logits_of(found: Words) -> list[list[float]]:
    assert found.bias is not None
    return [
        [math.fsum(h * w for h, w in zip(state, row, strict=True)) + b for row, b in zip(table, biases, strict=True)]
        for state in found.states.tolist()
        for table, biases in [(found.weight.tolist()[: found.vocab], found.bias.tolist()[: found.vocab])]
    ]


def log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    total = math.log(math.fsum(math.exp(each - top) for each in logits)) + top
    return [each - total for each in logits]


def expected(student: Words, teacher: Words, labels: list[int]) -> float:
    found = 0.0
    for ours, theirs, label in zip(logits_of(student), logits_of(teacher), labels, strict=True):
        p, q = (log_softmax([each / FORM.temperature for each in logits]) for logits in (theirs, ours))
        kl = math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
        found += FORM.lm_weight * -log_softmax(ours)[label] + FORM.soft_weight * FORM.temperature**2 * kl
    return found


@pytest.mark.parametrize("chunk_bytes", [1, 28 * 3, 10**6])
def test_both_parts_in_any_chunks_are_those_of_a_loop(chunk_bytes: int) -> None:
    student, teacher, labels = words(8, seed=1, rows=9), words(8, seed=5, width=6), [0, 6, 2, 2, 5, 1, 3, 4]
    found = word_sums(student, torch.tensor(labels), FORM, teacher=teacher, chunk_bytes=chunk_bytes)
    assert found.loss.item() == pytest.approx(expected(student, teacher, labels), rel=1e-9)
    assert float(found.metrics[METRICS.index("loss")]) == found.loss.item()


def test_its_gradients_are_those_of_finite_differences() -> None:
    teacher, labels = words(5, seed=5, width=6), torch.tensor([0, 6, 2, 2, 5])
    begun = learning(words(5, seed=1, rows=9))

    def loss(*parts: Any) -> Tensor:
        return word_sums(Words(*parts, 7), labels, FORM, teacher=teacher, chunk_bytes=28 * 2).loss

    assert torch.autograd.gradcheck(loss, (begun.states, begun.weight, begun.bias))


def test_rows_that_are_no_tokens_learn_nothing() -> None:
    student = learning(words(5, seed=1, rows=9))
    word_sums(student, torch.tensor([0, 6, 2, 2, 5]), FORM, teacher=words(5, seed=5)).loss.backward()
    assert student.weight.grad is not None and student.bias is not None and student.bias.grad is not None
    assert student.weight.grad[7:].abs().max() == 0 == student.bias.grad[7:].abs().max()
    assert student.weight.grad[:7].abs().min() > 0


def test_a_frozen_layer_gets_no_gradient_and_its_states_do() -> None:
    student = words(5, seed=1)
    student.states.requires_grad_()
    word_sums(student, torch.tensor([0, 6, 2, 2, 5]), WordForm(1.0, 0.0, 1.0)).loss.backward()
    assert student.weight.grad is None and student.states.grad is not None


def test_a_teacher_that_says_the_same_costs_nothing() -> None:
    student = learning(words(6, seed=1))
    found = word_sums(student, torch.zeros(6, dtype=torch.int64), WordForm(0.0, 5.0, 2.0), teacher=words(6, seed=1))
    found.loss.backward()
    assert abs(found.loss.item()) < 1e-12
    assert student.states.grad is not None and student.states.grad.abs().max() < 1e-12
    assert float(found.metrics[METRICS.index("agreement")]) == 6


def test_no_hidden_token_gives_zero_and_zero_gradients() -> None:
    student = learning(words(0, seed=1))
    found = word_sums(student, torch.empty(0, dtype=torch.int64), FORM, teacher=words(0, seed=5))
    found.loss.backward()
    assert found.loss.item() == 0.0 and float(found.metrics.abs().sum()) == 0.0
    assert student.weight.grad is not None and student.weight.grad.abs().max() == 0


def test_a_vocabulary_beyond_the_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="the tokenizer has 8 tokens and an output layer 7"):
        words(1, seed=1, vocab=8)
