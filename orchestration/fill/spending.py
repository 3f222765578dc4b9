"""What one engine of a fill spends between two commits, so that each segment says what its rows took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cache.disk.spending import Spent


class Spending:
    """The clock of one engine; it runs from its making on.

    `joules` gives the engine's share of the energy since the fill began, NaN as long as that is not known: its engines
    share what all their machines take, so that what two engines of one machine take is counted once.
    """

    def __init__(
        self, *, gpus: float, joules: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gpus, self._joules, self._clock = gpus, joules, clock
        self._since = clock()
        self._counted = 0.0

    def take(self) -> Spent:
        """What was spent since this was asked last."""
        now, joules = self._clock(), self._joules()
        seconds, energy = now - self._since, joules - self._counted
        self._since = now
        if math.isfinite(joules):
            self._counted = joules
        return Spent(seconds, seconds * self._gpus, energy)
