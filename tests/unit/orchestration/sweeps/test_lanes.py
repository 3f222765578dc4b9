"""As many trials at once as worker groups have room, unless somebody says how many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweep_builders import EXPERIMENT, RATE

from configs import DistillConfig
from orchestration.plan.hardware import Hardware
from orchestration.sweeps import lanes as module
from orchestration.sweeps.lanes import lanes_of, open_lanes


def config(workers: int, *, cpus: float = 1.0, rollout: bool = False, **sweep: Any) -> DistillConfig:
    students = {name: dict(each) for name, each in EXPERIMENT["students"].items()}
    if rollout:
        students["kd"]["stages"] = [{"objective": "kd", "rollout": {"count": 1}}]
    return DistillConfig.model_validate(
        EXPERIMENT
        | {
            "students": students,
            "sweep": {"space": {RATE: [1e-4, 2e-4]}} | sweep,
            "runtime": {"training": {"workers": workers, "cpus_per_worker": cpus}},
        }
    )


@pytest.mark.parametrize(
    ("given", "hardware", "lanes"),
    [
        (config(2), Hardware("cpu", cpus=2), 1),
        (config(2), Hardware("cpu", cpus=8), 4),
        (config(2, cpus=4.0), Hardware("cpu", cpus=9), 1),
        (config(1, cpus=0.5), Hardware("cpu", nodes=2, cpus=2), 8),
        (config(2), Hardware("cpu"), 1),
        (config(4), Hardware("cpu", cpus=2), 1),
        (config(2), Hardware("gpu", nodes=2, gpus_per_node=8), 8),
        (config(16), Hardware("gpu", nodes=1, gpus_per_node=8), 1),
        (config(2, rollout=True), Hardware("gpu", nodes=2, gpus_per_node=8), 1),
        (config(2, side_by_side=3), Hardware("cpu", cpus=2), 3),
    ],
)
def test_lanes(given: DistillConfig, hardware: Hardware, lanes: int) -> None:
    assert lanes_of(given, hardware=hardware) == lanes


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    noted: list[str] = []

    @contextmanager
    def cluster(*, address: str | None, gpus: int) -> Iterator[None]:
        noted.append(f"cluster with {gpus} GPUs")
        yield
        noted.append("cluster ended")

    monkeypatch.setattr(module, "cluster", cluster)
    monkeypatch.setattr(module, "cluster_address", lambda: "127.0.0.1:1234")
    return noted


def opened(given: DistillConfig, hardware: Hardware, calls: list[str]) -> tuple[int, str | None]:
    def lane(log: Path) -> Any:
        return SimpleNamespace(close=lambda: calls.append(f"{log.stem} ended"))

    with open_lanes(given, hardware=hardware, directory=Path("runs/s"), make_lane=lane) as lanes:
        return len(lanes.each), lanes.address


def test_a_lane_alone_starts_its_own_cluster(calls: list[str]) -> None:
    assert opened(config(2), Hardware("cpu", cpus=2), calls) == (1, None)
    assert calls == ["lane-0 ended"]


def test_several_share_one_that_outlives_them(calls: list[str]) -> None:
    assert opened(config(4), Hardware("gpu", gpus_per_node=8), calls) == (2, "127.0.0.1:1234")
    assert calls == ["cluster with 8 GPUs", "lane-1 ended", "lane-0 ended", "cluster ended"]


def test_the_cluster_of_a_user_is_shared(calls: list[str]) -> None:
    given = config(4)
    given = given.model_copy(update={"runtime": given.runtime.model_copy(update={"ray_address": "10.0.0.1:6379"})})
    assert opened(given, Hardware("gpu", gpus_per_node=8), calls) == (2, "10.0.0.1:6379")
    assert calls == ["lane-1 ended", "lane-0 ended"]
