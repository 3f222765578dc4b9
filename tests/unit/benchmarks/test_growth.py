"""The power of a growth, and the rows that it becomes."""

from __future__ import annotations

import pytest

from benchmarks.growth import power

SIZES = (1, 8, 64, 512)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_power_of_a_power_is_its_exponent(exponent: float) -> None:
    assert power(SIZES, [0.3 * size**exponent for size in SIZES]) == pytest.approx(exponent, abs=1e-9)


def test_a_cost_beside_the_growth_makes_it_flatter() -> None:
    assert 0.1 < power(SIZES, [100 + size for size in SIZES]) < 0.5
