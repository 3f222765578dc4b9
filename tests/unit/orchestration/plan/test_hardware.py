"""What an experiment runs on: this machine, a cluster that answers, or what the configuration says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError, DistillConfig
from orchestration.plan import hardware
from orchestration.plan.hardware import (
    GIB,
    Hardware,
    HostMemory,
    choose_accelerator,
    hardware_of,
    read_host_memory,
    visible_gpus,
)

THERE = Hardware("gpu", 3, 4, 80.0)


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    monkeypatch.setattr(hardware, "read_host_memory", lambda: HostMemory(8.0, 4.0))


def experiment(**runtime: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"small": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 1}]}},
            "runtime": runtime,
        }
    )


def nobody(config: DistillConfig) -> Hardware:
    pytest.fail("a cluster was asked")


def test_this_machine_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    config = experiment(accelerator="auto")
    assert hardware_of(config, ask_cluster=nobody) == Hardware("cpu", cpus=2, memory=HostMemory(8.0, 4.0))
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 3)
    found = hardware_of(config, ask_cluster=nobody)
    assert (found.accelerator, found.nodes, found.gpus_per_node, found.memory) == ("gpu", 1, 3, HostMemory(8.0, 4.0))


def test_a_cluster_is_asked_what_it_has_whatever_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 8)
    config = experiment(accelerator="auto", ray_address="10.0.0.1:6379")
    asked: list[DistillConfig] = []
    assert hardware_of(config, ask_cluster=lambda each: asked.append(each) or THERE) == THERE
    assert asked == [config]


@pytest.mark.parametrize(("accelerator", "found"), [("cpu", Hardware("cpu", 2)), ("gpu", Hardware("gpu", 2, 8, 80.0))])
def test_a_named_accelerator_needs_no_cluster_to_plan(accelerator: str, found: Hardware) -> None:
    config = experiment(accelerator=accelerator, ray_address="10.0.0.1:6379", nodes=2, gpus_per_node=8)
    assert hardware_of(config, ask_cluster=nobody) == found


def test_gpus_that_are_demanded_and_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.accelerator=gpu but this machine has no GPU"):
        hardware_of(experiment(accelerator="gpu"), ask_cluster=nobody)


@pytest.mark.parametrize(("gpus", "nodes", "per_node"), [(1, 1, 1), (4, 1, 4), (8, 1, 8), (24, 3, 8)])
def test_gpus_can_be_assumed(gpus: int, nodes: int, per_node: int) -> None:
    config = experiment(gpus_per_node=8, ray_address="10.0.0.1:6379")
    assert hardware_of(config, ask_cluster=nobody, assume_gpus=gpus) == Hardware("gpu", nodes, per_node, 80.0)


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (0, "--assume-gpus 0 leaves nothing to plan for: name at least 1"),
        (-8, "--assume-gpus -8 leaves nothing to plan for: name at least 1"),
        (12, "--assume-gpus 12 is not a multiple of runtime.gpus_per_node=8: correct one"),
    ],
)
def test_gpus_that_cannot_be_assumed_are_refused(gpus: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        hardware_of(experiment(gpus_per_node=8), ask_cluster=nobody, assume_gpus=gpus)


def test_this_machine_and_the_limits_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal:       16777216 kB\nMemFree:         1 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
    )
    assert read_host_memory(tmp_path, ()) == HostMemory(16.0, 8.0)
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", (16.0, 8.0)), (f"{4 * GIB}\n", (4.0, 4.0)), (f"{2**63}\n", (16.0, 8.0))):
        limit.write_text(text)
        assert read_host_memory(tmp_path, (str(limit), "/nowhere")) == HostMemory(*expected)
    (tmp_path / "meminfo").write_text("nonsense")
    assert read_host_memory(tmp_path, ()) is None
    assert read_host_memory(tmp_path / "none", ()) is None
    here = read_host_memory()
    assert here is not None and 0 < here.free_gib <= here.total_gib


@pytest.mark.parametrize(
    ("wanted", "gpus", "expected"),
    [("auto", 0, "cpu"), ("auto", 2, "gpu"), ("cpu", 2, "cpu"), ("cpu", 0, "cpu"), ("gpu", 1, "gpu")],
)
def test_the_accelerator(wanted: str, gpus: int, expected: str) -> None:
    assert choose_accelerator(experiment(accelerator=wanted), gpus=gpus) == expected


def test_gpus_that_are_not_there_are_refused_with_three_ways_out() -> None:
    with pytest.raises(ConfigError) as error:
        choose_accelerator(experiment(accelerator="gpu"), gpus=0)
    text = str(error.value)
    assert text.startswith("runtime.accelerator=gpu but this machine has no GPU: ")
    assert all(cure in text for cure in ("runtime.accelerator=cpu", "--ray-address", "distill plan --assume-gpus"))


def test_a_cluster_may_have_gpus_that_this_machine_has_not() -> None:
    attached = experiment(accelerator="gpu", ray_address="10.0.0.1:6379")
    assert choose_accelerator(attached, gpus=0) == "gpu"


@pytest.mark.parametrize(
    ("masked", "expected"), [(None, 4), ("0,1", 2), ("", 0), ("-1", 0), ("3", 1), ("GPU-aa,GPU-bb", 2)]
)
def test_gpus_are_counted_as_far_as_this_process_may_use_them(
    masked: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = "".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})\n  MIG 1g.10gb Device 0\n" for i in range(4))
    listed = subprocess.CompletedProcess(["nvidia-smi"], 0, stdout=listing)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: listed)
    if masked is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", masked)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    "failure", [FileNotFoundError("nvidia-smi"), PermissionError(), subprocess.TimeoutExpired("nvidia-smi", 30)]
)
def test_without_a_driver_there_are_no_gpus(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    assert visible_gpus() == 0
