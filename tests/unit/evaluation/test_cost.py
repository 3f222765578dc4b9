"""What a run took and what it saved, in hours and money."""

from __future__ import annotations

import math

import pytest

from configs.budgets import PriceConfig
from evaluation.cost import BETWEEN, Saved, Usage, metrics, money, phases, run_cost, whole
from evaluation.results import StageCost

STAGES = (StageCost("fill", 100.0, 3000.0, 4e-4), StageCost("train a", 50.0, 1000.0, 1e-4))
TOTAL = StageCost("", 160.0, 4300.0, 6e-4)


def test_an_hour_of_all_gpus_has_a_price() -> None:
    usage = Usage(1_000_000, teacher_gpu_seconds=7200.0, other_gpu_seconds=1800.0)
    assert money(usage, PriceConfig(gpu_hour=2.0)) == pytest.approx(5.0)


def test_a_teacher_with_a_price_by_the_token_is_not_paid_by_the_hour_as_well() -> None:
    usage = Usage(3_000_000, teacher_gpu_seconds=7200.0, other_gpu_seconds=1800.0)
    assert money(usage, PriceConfig(teacher_million_tokens=0.5)) == pytest.approx(1.5)
    assert money(usage, PriceConfig(teacher_million_tokens=0.5, gpu_hour=2.0)) == pytest.approx(2.5)


def test_without_prices_money_is_not_known() -> None:
    assert math.isnan(money(Usage(1, 1.0), None))


def test_phases_sum_to_the_total() -> None:
    found = phases(STAGES, total=TOTAL)
    assert found[-1].name == BETWEEN and found[-1].seconds == pytest.approx(10.0)
    assert found[-1].joules == pytest.approx(300.0)
    for name in ("seconds", "joules", "co2_kg"):
        assert math.fsum(getattr(each, name) for each in found) == pytest.approx(getattr(TOTAL, name))


def test_a_meter_that_says_less_in_all_than_stage_by_stage_leaves_no_negative_rest() -> None:
    assert phases(STAGES, total=StageCost("", 149.0, 4300.0, 6e-4))[-1].seconds == 0.0


def test_energy_that_nobody_measured_is_not_zero() -> None:
    found = phases((StageCost("fill", 10.0, math.nan, math.nan),), total=StageCost("", 12.0, math.nan, math.nan))
    assert found[-1].seconds == 2.0 and math.isnan(found[-1].joules)


def test_the_cost_of_a_run() -> None:
    cost = run_cost(
        STAGES,
        total=TOTAL,
        energy_source="estimated",
        usage=Usage(2_000_000, 3600.0, 1800.0),
        saved=Saved(8_000_000, 14400.0, 9e6),
        prices=PriceConfig(currency="EUR", gpu_hour=3.0),
    )
    assert (cost.teacher_hours, cost.saved_hours, cost.saved_joules) == (1.0, 4.0, 9e6)
    assert (cost.paid, cost.saved, cost.currency) == (pytest.approx(4.5), pytest.approx(12.0), "EUR")
    assert whole(cost).joules == pytest.approx(4300.0)
    assert metrics(cost) == pytest.approx(
        {
            "cost/seconds": 160.0, "cost/joules": 4300.0, "cost/co2_kg": 6e-4,
            "cost/teacher_tokens": 2e6, "cost/saved_tokens": 8e6, "cost/teacher_hours": 1.0, "cost/saved_hours": 4.0,
            "cost/saved_joules": 9e6, "cost/paid": 4.5, "cost/saved": 12.0,
        }
    )  # fmt: skip


def test_only_what_is_known_is_tracked() -> None:
    cost = run_cost(
        (), total=StageCost("", 1.0, math.nan, math.nan), energy_source="", usage=Usage(0, 0.0),
        saved=Saved(0, math.nan, math.nan), prices=None,
    )  # fmt: skip
    assert set(metrics(cost)) == {"cost/seconds", "cost/teacher_tokens", "cost/saved_tokens", "cost/teacher_hours"}
    assert cost.currency == ""


def test_what_the_experiment_bought_itself_is_not_saved() -> None:
    saved = Saved(1000, 50.0, 400.0)
    assert saved.beyond(250) == Saved(750, 37.5, 300.0)
    assert saved.beyond(5000).tokens == 0
    assert Saved(0, math.nan, math.nan).beyond(5).tokens == 0
    assert Saved(1000, 50.0, 400.0, 8.0).beyond(250).paid == 6.0
    assert saved.plus(Saved(1, 2.0, 3.0, 4.0)) == Saved(1001, 52.0, 403.0, 4.0)


@pytest.mark.parametrize(
    ("paid", "saved", "prices", "said"),
    [
        (2.0, 3.0, None, (2.0, 3.0, "USD")),
        (0.0, 3.0, None, (0.0, 3.0, "USD")),
        (2.0, 0.0, None, (2.0, 0.0, "USD")),
        (2.0, 3.0, PriceConfig(currency="EUR", gpu_hour=36.0), (2.5, 4.0, "EUR")),
    ],
)
def test_what_is_paid_by_the_token_is_saved_by_the_token(
    paid: float, saved: float, prices: PriceConfig | None, said: tuple[float, float, str]
) -> None:
    cost = run_cost(
        (), total=StageCost("", 1.0, 0.0, 0.0), energy_source="", usage=Usage(10, 50.0, paid=paid),
        saved=Saved(20, 100.0, 0.0, saved), prices=prices,
    )  # fmt: skip
    assert (cost.paid, cost.saved, cost.currency) == said
