"""What a cluster of several machines has: the least of those that an experiment would use."""

from __future__ import annotations

import pytest

from configs import ConfigError, DistillConfig
from orchestration.cluster import nodes
from orchestration.cluster.nodes import Node, cluster_hardware, require_gpus
from orchestration.plan.hardware import Hardware, HostMemory

ADDRESS = "10.0.0.1:6379"


def experiment() -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"small": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 1}]}},
            "runtime": {"ray_address": ADDRESS, "gpu_memory_gib": 40},
        }
    )


def found(monkeypatch: pytest.MonkeyPatch, *machines: tuple[int, int, float | None]) -> Hardware:
    """For machines of (CPUs, GPUs, GiB of memory or None where nobody knows)."""
    there = tuple(Node(cpus, gpus, gib and HostMemory(gib, gib / 2)) for cpus, gpus, gib in machines)  # type: ignore[arg-type]
    asked: list[str] = []
    monkeypatch.setattr(nodes, "cluster_nodes", lambda address: asked.append(address) or there)
    hardware = cluster_hardware(experiment())
    assert asked == [ADDRESS]
    return hardware


def test_machines_with_gpus_are_taken_and_the_least_of_them_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = found(monkeypatch, (4, 0, 8.0), (32, 4, 256.0), (32, 8, 128.0), (16, 8, None))
    assert hardware == Hardware("gpu", 3, 4, 40.0, memory=HostMemory(128.0, 64.0))


def test_without_gpus_every_machine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = found(monkeypatch, (4, 0, 8.0), (32, 0, 16.0))
    assert hardware == Hardware("cpu", 2, cpus=4, memory=HostMemory(8.0, 4.0))


def test_what_nobody_knows_is_not_planned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, (4, 0, None)).memory is None


@pytest.mark.parametrize("resources", [{}, {"GPU": 0.0}])
def test_a_cluster_without_a_gpu_is_refused(resources: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.ray, "cluster_resources", lambda: resources)
    with pytest.raises(ConfigError, match=r"no machine of the cluster at 10\.0\.0\.1:6379 has a GPU"):
        require_gpus(ADDRESS)
    monkeypatch.setattr(nodes.ray, "cluster_resources", lambda: {"GPU": 1.0})
    require_gpus(ADDRESS)
