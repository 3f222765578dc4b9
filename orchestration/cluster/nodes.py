"""What the machines of a cluster have, asked of the cluster itself."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs import ConfigError
from configs.experiments import AnyExperiment
from configs.visible_text import first_line
from orchestration.cluster.private import cluster
from orchestration.plan.hardware import Hardware, HostMemory, read_host_memory

ANSWER_S = 120.0
"""How long a machine may take to answer: it starts a process for it."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: what its cluster may use of it."""

    cpus: int
    gpus: int
    memory: HostMemory | None


def require_gpus(address: str) -> None:
    """Refuse a cluster without a GPU, where everything that needs one would wait forever. Call it when attached.

    Raises:
        ConfigError: it has none.
    """
    if not ray.cluster_resources().get("GPU"):
        raise ConfigError(
            f"runtime.accelerator=gpu but no machine of the cluster at {address} has a GPU: set it to cpu, or start "
            "Ray where there are some (`ray start --num-gpus N` where it does not see them)"
        )


def cluster_hardware(config: AnyExperiment) -> Hardware:
    """What the cluster of a configuration has; its machines with GPUs if there are some, else all of them.

    The driver may be any of its machines, or none, so what it has itself says nothing.

    Raises:
        ConfigError: no cluster answers there, or a machine of it does not.
    """
    address = config.runtime.ray_address
    assert address is not None
    nodes = cluster_nodes(address)
    chosen = [node for node in nodes if node.gpus] or list(nodes)
    memories = [node.memory for node in chosen if node.memory is not None]
    memory = min(memories, key=lambda each: each.total_gib, default=None)
    if not chosen[0].gpus:
        return Hardware("cpu", len(chosen), cpus=min(node.cpus for node in chosen), memory=memory)
    per_node = min(node.gpus for node in chosen)
    return Hardware("gpu", len(chosen), per_node, config.runtime.gpu_memory_gib, memory=memory)


def cluster_nodes(address: str) -> tuple[Node, ...]:
    """Attach to a cluster, ask every machine, and detach again.

    Raises:
        ConfigError: no cluster answers there, or a machine of it does not.
    """
    with cluster(address=address, gpus=0):
        alive = [node for node in ray.nodes() if node["Alive"]]
        reads = ray.remote(num_cpus=0)(read_host_memory)
        asked = [
            reads.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            ).remote()
            for node in alive
        ]
        try:
            memories = ray.get(asked, timeout=ANSWER_S)
        except ray.exceptions.RayError as error:
            raise ConfigError(
                f"not all {len(alive)} machines of the cluster at {address} report what they have "
                f"({first_line(error)}): install stillroom on each of them"
            ) from error
    return tuple(
        Node(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)), memory)
        for node, memory in zip(alive, memories, strict=True)
    )
