"""What an experiment runs on: this machine, a cluster that is attached to, or GPUs that are only assumed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import ConfigError
from configs.experiments import AnyExperiment
from configs.models import Device

GIB = 2**30

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Memory of a machine, in GiB: what there is (or what its container may take), and what is free now."""

    total_gib: float
    free_gib: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """What there is, or what is assumed. On CPUs the number of GPUs is ignored.

    `cpus` and `memory` are those of one machine; None is unknown.
    """

    accelerator: Device
    nodes: int = 1
    gpus_per_node: int = 0
    gpu_memory_gib: float = 80.0
    cpus: int | None = None
    memory: HostMemory | None = None


def read_host_memory(proc: Path = Path("/proc"), limits: Sequence[str] = _CGROUP_LIMITS) -> HostMemory | None:
    """This machine's memory, or None where the system does not tell."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.split()[1].isdigit()}
        total, free = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    for name in limits:
        try:
            allowed = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            # None set (`max`), or another version of control groups.
            continue
        total = min(total, allowed)
    return HostMemory(total / GIB, min(free, total) / GIB)


def hardware_of(
    config: AnyExperiment, *, ask_cluster: Callable[[AnyExperiment], Hardware], assume_gpus: int | None = None
) -> Hardware:
    """What the experiment will run on.

    `ask_cluster` (`orchestration.cluster.nodes.cluster_hardware`) is called where only a cluster can say it. Where the
    configuration names the accelerator it is also believed about the machines, so that a plan can be made while there
    is no cluster yet.

    Raises:
        ConfigError: GPUs are demanded and there are none.
    """
    runtime = config.runtime
    if assume_gpus is not None:
        return _assumed(config, gpus=assume_gpus)
    if runtime.ray_address is not None:
        if runtime.accelerator == "gpu":
            return Hardware("gpu", runtime.nodes, runtime.gpus_per_node, runtime.gpu_memory_gib)
        if runtime.accelerator == "cpu":
            return Hardware("cpu", runtime.nodes)
        return ask_cluster(config)
    gpus = visible_gpus()
    if choose_accelerator(config, gpus=gpus) == "cpu":
        return Hardware("cpu", cpus=cpu_count(), memory=read_host_memory())
    return Hardware(
        "gpu", runtime.nodes, gpus or runtime.gpus_per_node, runtime.gpu_memory_gib, memory=read_host_memory()
    )


def _assumed(config: AnyExperiment, *, gpus: int) -> Hardware:
    runtime = config.runtime
    per_node = min(gpus, runtime.gpus_per_node)
    if gpus < 1:
        raise ConfigError(f"--assume-gpus {gpus} leaves nothing to plan for: name at least 1")
    if gpus % per_node:
        raise ConfigError(
            f"--assume-gpus {gpus} is not a multiple of runtime.gpus_per_node={runtime.gpus_per_node}: correct one"
        )
    return Hardware("gpu", gpus // per_node, per_node, runtime.gpu_memory_gib)


def choose_accelerator(config: AnyExperiment, *, gpus: int) -> Device:
    """What `runtime.accelerator` means on a machine with `gpus` GPUs.

    Raises:
        ConfigError: GPUs are demanded and there are none.
    """
    wanted = config.runtime.accelerator
    if wanted == "gpu" and gpus == 0 and config.runtime.ray_address is None:
        raise ConfigError(
            "runtime.accelerator=gpu but this machine has no GPU: set runtime.accelerator=cpu, attach to a cluster "
            "with --ray-address, or look at the plan alone with `distill plan --assume-gpus N`"
        )
    if wanted == "auto":
        return "gpu" if gpus else "cpu"
    return wanted


def visible_gpus() -> int:
    """GPUs of this machine that this process may use."""
    masked = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return count if masked is None else min(count, len([d for d in masked.split(",") if d.strip() not in ("", "-1")]))


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
