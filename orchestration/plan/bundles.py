"""Dealing engines and workers out to the GPUs or CPUs of one or more nodes.

A tensor-parallel group never crosses a node: its ranks exchange activations in every layer. Engines are dealt over the
nodes in turn; workers fill node after node, so neighbouring ranks share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs import ConfigError
from configs.models import Device
from configs.schema import EngineSettings, TrainingSettings

Role = Literal["teacher engine", "training worker", "student engine"]


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of a machine, in GiB: what there is (or what its container may take), and what is free now."""

    total_gib: float
    free_gib: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """What there is, or what is assumed. On CPUs the number of GPUs is not looked at.

    `cpus` and `memory` are those of one machine; None is unknown.
    """

    accelerator: Device
    nodes: int = 1
    gpus_per_node: int = 0
    gpu_memory_gib: float = 80.0
    cpus: int | None = None
    memory: HostMemory | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """One process (or tensor-parallel group): its place. `gpus` are indices on the node; none on CPUs."""

    role: Role
    index: int
    node: int
    gpus: tuple[int, ...]


def place_engines(role: Role, settings: EngineSettings, *, key: str, hardware: Hardware) -> list[Bundle]:
    """Deal the engines over the nodes in turn; each takes a run of neighbouring GPUs. `key` is their block.

    Raises:
        ConfigError: they do not fit, naming keys and cure.
    """
    count, width = settings.count, settings.tensor_parallel
    if hardware.accelerator == "cpu":
        if width > 1:
            raise ConfigError(f"{key}.tensor_parallel={width} needs GPUs: set it to 1, or raise {key}.cpus")
        if settings.max_batched_tokens < settings.max_model_len:
            # A prompt cut in chunks crashes seeded requests on the CPU engine, so it must fit one batch.
            raise ConfigError(
                f"{key}.max_batched_tokens={settings.max_batched_tokens} is less than "
                f"max_model_len={settings.max_model_len}, which the CPU engine needs: raise the first"
            )
        _check_cpus(count * settings.cpus, f"{key}.count={count} x cpus={settings.cpus}", hardware)
        return [Bundle(role, index, index % hardware.nodes, ()) for index in range(count)]
    if width > hardware.gpus_per_node:
        raise ConfigError(
            f"{key}.tensor_parallel={width} is more than the {hardware.gpus_per_node} GPUs of a node "
            "(runtime.gpus_per_node), and a group stays on one node: lower it"
        )
    room = hardware.nodes * (hardware.gpus_per_node // width)
    if count > room:
        raise ConfigError(
            f"{key}.count={count} x tensor_parallel={width} does not fit {hardware.nodes} nodes x "
            f"{hardware.gpus_per_node} GPUs, which hold {room} whole groups: set count to {room} or less"
        )
    places = [divmod(index, hardware.nodes) for index in range(count)]
    return [
        Bundle(role, index, node, tuple(range(slot * width, (slot + 1) * width)))
        for index, (slot, node) in enumerate(places)
    ]


def place_workers(settings: TrainingSettings, *, hardware: Hardware) -> list[Bundle]:
    """One GPU a worker, node after node.

    Raises:
        ConfigError: there are too few GPUs or CPUs.
    """
    count = settings.workers
    if hardware.accelerator == "cpu":
        asked = f"runtime.training.workers={count} x cpus_per_worker={settings.cpus_per_worker:g}"
        _check_cpus(count * settings.cpus_per_worker, asked, hardware)
        return [Bundle("training worker", rank, rank * hardware.nodes // count, ()) for rank in range(count)]
    room = hardware.nodes * hardware.gpus_per_node
    if count > room:
        raise ConfigError(
            f"runtime.training.workers={count} is more than the {room} GPUs of {hardware.nodes} nodes x "
            f"{hardware.gpus_per_node}: set it to {room} or less"
        )
    places = [divmod(rank, hardware.gpus_per_node) for rank in range(count)]
    return [Bundle("training worker", rank, node, (gpu,)) for rank, (node, gpu) in enumerate(places)]


def _check_cpus(needed: float, asked: str, hardware: Hardware) -> None:
    """More than there are would leave the scheduler waiting for ever."""
    if hardware.cpus is not None and needed > hardware.nodes * hardware.cpus:
        there = f"{hardware.nodes} nodes x {hardware.cpus}" if hardware.nodes > 1 else str(hardware.cpus)
        raise ConfigError(f"{asked} needs {needed:g} CPUs but there are {there}: lower one of them")
