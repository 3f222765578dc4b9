"""What an experiment runs on: this machine, a cluster that is attached to, or GPUs that are only assumed."""

from __future__ import annotations

from collections.abc import Callable

from configs import ConfigError, DistillConfig
from orchestration.inputs.preflight import choose_accelerator, cpu_count, visible_gpus
from orchestration.plan.bundles import Hardware
from orchestration.plan.host_memory import read_host_memory


def hardware_of(
    config: DistillConfig, *, ask_cluster: Callable[[DistillConfig], Hardware], assume_gpus: int | None = None
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


def _assumed(config: DistillConfig, *, gpus: int) -> Hardware:
    runtime = config.runtime
    per_node = min(gpus, runtime.gpus_per_node)
    if gpus < 1:
        raise ConfigError(f"--assume-gpus {gpus} leaves nothing to plan for: name at least 1")
    if gpus % per_node:
        raise ConfigError(
            f"--assume-gpus {gpus} is not a multiple of runtime.gpus_per_node={runtime.gpus_per_node}: correct one"
        )
    return Hardware("gpu", gpus // per_node, per_node, runtime.gpu_memory_gib)
