"""What a teacher costs, and that a budget holds among threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from configs.errors import BudgetReached
from teacher_server.remote.spending import Prices, Purse

PRICES = Prices(read=2.0, written=8.0)


def test_prices_are_for_a_million_tokens() -> None:
    assert PRICES.cost(read=500_000, written=250_000) == pytest.approx(3.0)


def test_what_was_cheaper_than_feared_leaves_room() -> None:
    purse = Purse(PRICES, budget=10.0)
    with purse.spending(read=0, written=1_000_000) as bill:
        with (
            pytest.raises(BudgetReached, match="may cost 8, and 8 of the budget of 10"),
            purse.spending(read=0, written=1_000_000),
        ):
            pass
        bill.cost = 1.0
    with purse.spending(read=0, written=1_000_000):
        pass
    assert purse.spent == pytest.approx(9.0)


def test_what_ends_in_an_error_may_have_to_be_paid() -> None:
    purse = Purse(PRICES)
    with pytest.raises(ValueError, match="broken"), purse.spending(read=1_000_000, written=0):
        raise ValueError("broken")
    assert purse.spent == pytest.approx(2.0)


def test_many_at_once_never_exceed_it() -> None:
    purse, refused = Purse(PRICES, budget=20.0), []

    def ask(_: int) -> None:
        try:
            with purse.spending(read=0, written=125_000) as bill:
                bill.cost = 0.9
        except BudgetReached:
            refused.append(1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))
    assert purse.spent <= 20.0
    assert purse.spent == pytest.approx(0.9 * (60 - len(refused)))
    assert refused
