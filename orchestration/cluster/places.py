"""Places for engines and workers: taken all at once or not at all, on the machines that a plan says, and given back.

Each of them is a bundle of a placement group of Ray. A bundle lies on one machine, so an engine with several GPUs never
crosses one. Engines are spread over the machines, as evenly as there is room; workers, which exchange gradients, are
packed onto as few as possible (`orchestration.plan.placement.dealt`). What can never have its places is refused at
once, where Ray itself would wait for ever. See docs/decisions/0018-placement.md.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from configs import ConfigError

LOOK_EVERY_S = 2.0
"""How often it is looked whether the places are there, and could still be."""

SAID_EVERY_S = 60.0
"""How often a log says that somebody waits."""

_PLENTY = 10**9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`count` places of `each` (resources by Ray's names) for `what` they are called in words.

    `cure` says which keys ask for less.
    """

    what: str
    count: int
    each: Mapping[str, float]
    strategy: Literal["PACK", "SPREAD"]
    cure: str

    @property
    def bundle(self) -> dict[str, float]:
        """What of `each` is not nothing; Ray knows no empty bundles."""
        return {name: amount for name, amount in self.each.items() if amount}


@dataclass(frozen=True, slots=True)
class Places:
    """Places that are taken. Where nothing is reserved there is no group, and Ray spreads who comes."""

    count: int
    group: PlacementGroup | None = None

    def options(self, index: int) -> dict[str, Any]:
        """Options of an actor that is to have the place of this number."""
        if self.group is None:
            return {"scheduling_strategy": "SPREAD"}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)}

    def release(self) -> None:
        """Give them back; whoever is still there ends."""
        if self.group is not None:
            # Where the cluster itself is gone there is nothing to give back, and another error says so.
            with suppress(RayError):
                remove_placement_group(self.group)


def take_places(wanted: Wanted, *, fewer: bool = False) -> Places:
    """Take all places, waiting as long as others have them; with `fewer` as many as the machines have room for.

    Raises:
        ConfigError: they do not fit the machines, even if everything else ended.
    """
    while True:
        places = begin_to_take(wanted, fewer=fewer)
        try:
            wait_for(places, wanted)
        except ConfigError:
            # A machine that was thought to be there is not; with `fewer` there may be room for less.
            places.release()
            if not fewer:
                raise
        except BaseException:
            places.release()
            raise
        else:
            return places


def begin_to_take(wanted: Wanted, *, fewer: bool = False) -> Places:
    """Ask for all places, without waiting for them; see `take_places`.

    Raises:
        ConfigError: they do not fit the machines.
    """
    count = fitting(wanted, fewer=fewer)
    if not wanted.bundle:
        return Places(count)
    return Places(count, placement_group([wanted.bundle] * count, strategy=wanted.strategy))


def wait_for(places: Places, wanted: Wanted, *, given_up: Callable[[], bool] = lambda: False) -> None:
    """Return when the places are there, or nobody wants them any more.

    Raises:
        ConfigError: they do not fit the machines any more.
    """
    started = said = time.monotonic()
    while places.group is not None and not given_up() and not places.group.wait(LOOK_EVERY_S):
        fitting(wanted, least=places.count)
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            logger.info("%s wait for their places, which others have, for %.0f s by now", wanted.what, said - started)


def fitting(wanted: Wanted, *, fewer: bool = False, least: int | None = None) -> int:
    """How many of the places the machines have room for, at most as many as are wanted.

    Raises:
        ConfigError: there is no room for all of them (with `fewer`: for one, with `least`: for so many).
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = room_for(wanted.bundle, machines)
    if room < (1 if fewer else wanted.count if least is None else least):
        raise ConfigError(
            f"{wanted.count} {wanted.what} of {_in_words(wanted.bundle)} each do not fit the cluster, which has room "
            f"for {room}: {_machines_in_words(machines, wanted.bundle)}; {wanted.cure}"
        )
    return min(room, wanted.count)


def room_for(bundle: Mapping[str, float], machines: Sequence[Mapping[str, float]]) -> int:
    """How many such bundles these machines hold, each on one of them, if nothing else is there."""
    if not bundle:
        return _PLENTY
    # Ray counts in ten-thousandths, which floats of this size divide without an error that matters.
    return sum(
        min(int(machine.get(name, 0.0) / amount + 1e-6) for name, amount in bundle.items()) for machine in machines
    )


def beside_the_driver() -> dict[str, Any]:
    """Options of an actor that is to lie on the driver's machine: it goes when the driver goes, and with no other."""
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=True)}


def _machines_in_words(machines: Sequence[Mapping[str, float]], bundle: Mapping[str, float]) -> str:
    kinds = Counter(_in_words({name: machine.get(name, 0.0) for name in bundle}) for machine in machines)
    most_first = sorted(kinds.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count} x ({kind})" for kind, count in most_first) or "no machine"


def _in_words(resources: Mapping[str, float]) -> str:
    ordered = sorted(resources.items(), key=lambda each: each[0] != "GPU")
    return ", ".join(f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in ordered)
