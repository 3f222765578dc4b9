"""Pools of engines without Ray: places that are always there, and signs of life that nobody has to give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestration.cluster import actor_pool
from orchestration.cluster.places import Places, Wanted


@dataclass(slots=True)
class QuietLife:
    """What an engine is given that nobody looks after."""

    name: str = "0"
    beats: int = 0

    def beat(self) -> Any:
        self.beats += 1
        return lambda: None

    def holds(self) -> bool:
        return True


@dataclass(slots=True)
class Surroundings:
    """What pools took of the cluster, and what they are told of it."""

    room: int = 10**9
    wanted: list[Wanted] = field(default_factory=list)
    released: list[Wanted] = field(default_factory=list)
    waited: list[Wanted] = field(default_factory=list)
    looks: list[tuple[list[int] | None, float]] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)
    ended: int = 0

    def take(self, wanted: Wanted, *, fewer: bool = False) -> Places:
        self.wanted.append(wanted)
        taken = self

        class Given(Places):
            def release(self) -> None:
                taken.released.append(wanted)

        return Given(min(wanted.count, self.room) if fewer else wanted.count)

    def watch(self, count: int, *, after_s: float) -> Any:
        watched = self

        class Quiet:
            lives: Sequence[QuietLife] = [QuietLife(str(number)) for number in range(count)]

            def silent(self, among: Collection[int] | None = None) -> list[int]:
                watched.looks.append((None if among is None else list(among), after_s))
                return watched.silent

            def end(self) -> None:
                watched.ended += 1

        return Quiet()


def surround(patch: pytest.MonkeyPatch) -> Surroundings:
    """Have pools of any kind find such surroundings."""
    found = Surroundings()
    patch.setattr(actor_pool, "take_places", found.take)
    patch.setattr(actor_pool, "begin_to_take", found.take)
    patch.setattr(actor_pool, "wait_for", lambda places, wanted: found.waited.append(wanted))
    patch.setattr(actor_pool, "Watch", found.watch)
    patch.setattr(actor_pool, "beside_the_driver", dict)
    return found
