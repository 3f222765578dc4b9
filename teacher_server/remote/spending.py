"""What a teacher costs that is paid by the token, and where it ends.

A request is only sent while what it may cost at most still fits the budget, together with all that are under way: so
the budget is never exceeded, however many are asked at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from configs.errors import BudgetReached

PER = 1_000_000
"""Prices are for so many tokens, as they are published."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever the budget counts: those that are read, and those that are written."""

    read: float = 0.0
    written: float = 0.0

    def cost(self, *, read: int, written: int) -> float:
        """What so many tokens cost."""
        return (read * self.read + written * self.written) / PER


@dataclass(slots=True)
class Bill:
    """One request that is under way: what it turned out to cost, once it is known."""

    cost: float


class Purse:
    """A budget for many threads; without one everything is counted and nothing refused.

    Args:
        prices: What tokens cost.
        budget: What may be spent.
        spent: What of it is spent already.
        pay: Told what every request cost.
    """

    def __init__(
        self,
        prices: Prices,
        *,
        budget: float | None = None,
        spent: float = 0.0,
        pay: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.prices = prices
        self._budget, self._pay = budget, pay
        self._spent, self._reserved = spent, 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """What was spent so far."""
        with self._lock:
            return self._spent

    @contextmanager
    def spending(self, *, read: int, written: int) -> Iterator[Bill]:
        """A request that reads and writes at most so many tokens.

        The bill holds the most that it may cost, and counts as it stands at the end: also where an error ends it,
        because what was asked may have to be paid.

        Raises:
            BudgetReached: it may cost more than what is left.
        """
        most = self.prices.cost(read=read, written=written)
        self._reserve(most)
        bill = Bill(most)
        try:
            yield bill
        finally:
            with self._lock:
                self._reserved -= most
                self._spent += bill.cost
            if bill.cost:
                self._pay(bill.cost)

    def _reserve(self, most: float) -> None:
        with self._lock:
            held = self._spent + self._reserved
            if self._budget is not None and held + most > self._budget:
                raise BudgetReached(
                    f"the next request may cost {most:.4g}, and {held:.4g} of the budget of {self._budget:.4g} are "
                    "spent or under way: raise it, or go on with what there is"
                )
            self._reserved += most
