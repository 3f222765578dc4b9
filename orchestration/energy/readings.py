"""What a run has taken of electricity so far, as whoever wants to know asks for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from evaluation.results import StageCost

JOULES_PER_KWH = 3.6e6

UNKNOWN_SOURCE = ""
"""What `source` is where nothing measures."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy since the run began, and the carbon dioxide of making it; NaN where nobody measures."""

    joules: float
    co2_kg: float

    def __add__(self, other: Reading) -> Reading:
        return Reading(self.joules + other.joules, self.co2_kg + other.co2_kg)


UNKNOWN = Reading(math.nan, math.nan)
NOTHING = Reading(0.0, 0.0)


class EnergyMeter(Protocol):
    """Something that counts the energy of all machines of a run."""

    @property
    def source(self) -> str:
        """Where its numbers come from, in words; empty where nothing measures."""
        ...

    def read(self) -> Reading:
        """What was taken so far. It never falls, and takes a millisecond."""
        ...


@dataclass(frozen=True, slots=True)
class NoMeter:
    """Where nothing measures."""

    source: str = UNKNOWN_SOURCE

    def read(self) -> Reading:
        """Not known."""
        return UNKNOWN


class StageCosts:
    """What each stage of a run took. Of a stage within another one, only the inner has its cost."""

    def __init__(self, meter: EnergyMeter | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter: EnergyMeter = meter or NoMeter()
        self._clock = clock
        self._began = clock()
        self._stages: list[StageCost] = []
        self._inner: list[list[StageCost]] = [[]]

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Count what the body takes; one that fails is not a stage that was made."""
        since, before = self._clock(), self.meter.read()
        self._inner.append([])
        try:
            yield
        finally:
            within = self._inner.pop()
        after = self.meter.read()
        whole = (self._clock() - since, after.joules - before.joules, after.co2_kg - before.co2_kg)
        inner = [(each.seconds, each.joules, each.co2_kg) for each in within]
        own = [total - math.fsum(parts) for total, *parts in zip(whole, *inner, strict=True)]
        self._stages.append(StageCost(title, *own))
        self._inner[-1].append(StageCost(title, *whole))

    @property
    def stages(self) -> tuple[StageCost, ...]:
        """The stages that are over, in the order of their ends."""
        return tuple(self._stages)

    def total(self) -> StageCost:
        """Everything since the run began."""
        reading = self.meter.read()
        return StageCost("", self._clock() - self._began, reading.joules, reading.co2_kg)
