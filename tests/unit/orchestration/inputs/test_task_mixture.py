from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from configs import DataError
from configs.task import TaskKind
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_mixture import Together, mixed_logits
from orchestration.inputs.task_texts import WHOLE, UnitName


def of(logits: list[list[float]] | NDArray[np.float32], units: tuple[UnitName, ...] = (WHOLE,)) -> Beliefs:
    return Beliefs(units, np.array(logits, np.float32))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / math.fsum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
@pytest.mark.parametrize("kind", ["classification", "extractive_qa"])
def test_the_mixture_is_the_mean_of_the_softened_probabilities(kind: TaskKind, temperature: float) -> None:
    draw = np.random.default_rng(3)
    tables = [draw.normal(scale=4.0, size=(5, 3)).astype(np.float32) for _ in range(3)]
    shares = [0.5, 0.3, 0.2]
    axis = 0 if kind == "extractive_qa" else 1
    mixed = mixed_logits(tables, shares, temperature=temperature, axis=axis)
    lines = [table if axis == 1 else table.T for table in tables]
    for row, found in enumerate(mixed if axis == 1 else mixed.T):
        each = [softmax([float(value) / temperature for value in table[row]]) for table in lines]
        expected = [math.fsum(w * p[c] for w, p in zip(shares, each, strict=True)) for c in range(len(each[0]))]
        assert softmax([float(value) / temperature for value in found]) == pytest.approx(expected, abs=1e-6)
        assert float(found.sum()) == pytest.approx(0.0, abs=1e-4), "they are centred"


def test_sure_teachers_that_disagree_leave_finite_logits() -> None:
    mixed = mixed_logits([np.array([[1e4, 0.0]], np.float32), np.array([[0.0, 1e4]], np.float32)], [0.5, 0.5],
                         temperature=1.0, axis=1)  # fmt: skip
    assert mixed.tolist() == [[0.0, 0.0]]


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=5), st.floats(0.25, 8.0))
def test_of_one_teacher_nothing_is_changed(values: list[float], temperature: float) -> None:
    alone = of([values])
    assert Together("classification", ((1.0, alone),)).at(temperature) is alone


@given(st.permutations(range(3)))
def test_the_order_of_teachers_does_not_matter(order: list[int]) -> None:
    parts = [(0.2, of([[1.0, -2.0]])), (0.5, of([[0.0, 3.0]])), (0.3, of([[2.0, 2.0]]))]
    first = Together("classification", tuple(parts)).at(2.0)
    other = Together("classification", tuple(parts[at] for at in order)).at(2.0)
    np.testing.assert_allclose(first.logits, other.logits, rtol=0, atol=1e-6)


def test_of_words_those_that_all_teachers_see_are_mixed_whatever_their_order() -> None:
    first = of([[0.0, 1.0], [2.0, 0.0], [5.0, 0.0]], units=((0, 0), (1, 1), (2, 2)))
    other = of([[2.0, 0.0], [0.0, 1.0]], units=((1, 1), (0, 0)))
    mixed = Together("tagging", ((0.5, first), (0.5, other))).at(1.0)
    assert mixed.units == ((0, 0), (1, 1))
    np.testing.assert_allclose(mixed.logits, [[-0.5, 0.5], [1.0, -1.0]], atol=1e-6)


def test_passages_that_are_cut_differently_are_refused() -> None:
    first, other = of([[0.0, 1.0]], units=((0, 3),)), of([[0.0, 1.0]], units=((0, 2),))
    with pytest.raises(DataError, match="different tokens"):
        Together("extractive_qa", ((0.5, first), (0.5, other))).at(1.0)
