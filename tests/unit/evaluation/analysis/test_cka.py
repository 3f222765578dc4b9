"""CKA beside a slow reference that adds up every pair, and what it must not see."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.analysis.cka import cka_table, linear_cka

Array = np.ndarray[Any, np.dtype[np.float64]]


def states(seed: int, *, texts: int = 12, width: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal((texts, width))


def slow_hsic(x: Array, y: Array) -> float:
    """Song et al. (2007), equation 4, each sum written out over pairs of texts."""
    n = len(x)
    pairs = [(i, j) for i, j in product(range(n), repeat=2) if i != j]
    k, m = ({(i, j): math.fsum(each[i] * each[j]) for i, j in pairs} for each in (x, y))
    trace = math.fsum(k[i, j] * m[j, i] for i, j in pairs)
    totals = math.fsum(k.values()) * math.fsum(m.values()) / ((n - 1) * (n - 2))
    rows = [[math.fsum(each[i, j] for j in range(n) if i != j) for i in range(n)] for each in (k, m)]
    return (trace + totals - 2 / (n - 2) * math.fsum(a * b for a, b in zip(*rows, strict=True))) / (n * (n - 3))


def slow_cka(x: Array, y: Array) -> float:
    return slow_hsic(x, y) / math.sqrt(slow_hsic(x, x) * slow_hsic(y, y))


@pytest.mark.parametrize("texts", [4, 5, 12, 30])
@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_it_is_what_the_definition_says(texts: int, shift: float) -> None:
    x, y = states(1, texts=texts) + shift, states(2, texts=texts, width=8)
    y[:, :5] += x - shift
    assert linear_cka(x, y) == pytest.approx(slow_cka(x - shift, y), abs=1e-9)


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_rotations_and_scales_change_nothing(seed: int, scale: float) -> None:
    x, y = states(seed), states(seed + 1000, width=3) + states(seed)[:, :3]
    turned, _ = np.linalg.qr(states(seed + 2000, texts=5))
    assert linear_cka(scale * x @ turned, y) == pytest.approx(linear_cka(x, y), abs=1e-9)
    assert linear_cka(x, scale * x @ turned) == pytest.approx(1.0, abs=1e-9)


def test_other_maps_change_it() -> None:
    x = states(3)
    assert linear_cka(x, x * np.array([1, 1, 1, 1, 20.0])) < 0.9


def test_it_is_the_same_either_way_round() -> None:
    x, y = states(4), states(5, width=9)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), abs=1e-12)


def test_states_that_have_nothing_in_common_have_none_whatever_their_width() -> None:
    """The usual estimate is far from 0 here: 40 texts in 400 dimensions are all about as far from each other."""
    found = [
        linear_cka(states(seed, texts=40, width=400), states(seed + 500, texts=40, width=400)) for seed in range(9)
    ]
    assert abs(np.mean(found)) < 0.02 and min(found) < 0.0


def test_half_precision_is_read_in_double() -> None:
    x, y = states(6).astype(np.float16), states(7).astype(np.float16)
    assert linear_cka(x, y) == pytest.approx(slow_cka(x.astype(np.float64), y.astype(np.float64)), abs=1e-9)


def test_states_that_are_the_same_for_every_text_have_none() -> None:
    assert math.isnan(linear_cka(np.full((6, 3), 0.1), states(8, texts=6)))
    assert math.isnan(linear_cka(states(8, texts=6), np.zeros((6, 3))))


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="CKA needs 4 texts or more, and there are 3"):
        linear_cka(states(1, texts=3), states(2, texts=3))


def test_a_table_has_every_layer_beside_every_layer() -> None:
    teacher, student = [states(1), states(2), states(3, width=7)], [states(4, width=2), states(2)]
    table = cka_table(teacher, student)
    assert table == tuple(tuple(pytest.approx(linear_cka(x, y), abs=1e-12) for y in student) for x in teacher)
    assert table[1][1] == pytest.approx(1.0)
