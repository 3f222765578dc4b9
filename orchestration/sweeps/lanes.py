"""The lanes of a sweep: as many as the machines have room for worker groups, on one cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs import DistillConfig
from orchestration.cluster.private import cluster, cluster_address
from orchestration.plan.hardware import Hardware
from orchestration.sweeps.lane import Lane


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lanes, and the address of the Ray cluster that they share; None where a lane is alone and starts its own."""

    each: tuple[Lane, ...]
    address: str | None = None


@contextmanager
def open_lanes(
    config: DistillConfig, *, hardware: Hardware, directory: Path, make_lane: Callable[[Path], Lane] = Lane
) -> Iterator[Lanes]:
    """Lanes whose logs go below `directory`; they end with the block, and so does a cluster that was made for them."""
    count, address = lanes_of(config, hardware=hardware), config.runtime.ray_address
    with ExitStack() as opened:
        if count > 1 and address is None:
            opened.enter_context(cluster(address=None, gpus=hardware.gpus_per_node))
            address = cluster_address()
        logs = [directory / "logs" / f"lane-{number}.log" for number in range(count)]
        yield Lanes(tuple(opened.enter_context(closing(make_lane(log))) for log in logs), address)


def lanes_of(config: DistillConfig, *, hardware: Hardware) -> int:
    """The number of lanes: `sweep.side_by_side`, or what fits.

    Trials that write rollouts run one at a time unless told otherwise: their engines stand beside the workers, and no
    trial waits for those of another.
    """
    assert config.sweep is not None
    if config.sweep.side_by_side is not None:
        return config.sweep.side_by_side
    if any(stage.rollout is not None for student in config.students.values() for stage in student.stages):
        return 1
    training = config.runtime.training
    if hardware.accelerator == "gpu":
        return max(hardware.nodes * hardware.gpus_per_node // training.workers, 1)
    room = hardware.nodes * (hardware.cpus or 1) / (training.workers * training.cpus_per_worker)
    return max(int(room), 1)
