"""What pools of engines of any kind share: starts that are counted, and deaths. Fills are in test_engine_pool."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
from ray.exceptions import RayError

from configs import DistillError, EngineError
from orchestration.cluster import actor_pool, deaths
from orchestration.cluster.actor_pool import ActorPool
from orchestration.fill.ledger import Computes


class Clock:
    """Notes when engines are up."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def engines_up(self, gpus: float, *, whose: Computes) -> Callable[[], None]:
        self.noted.append((gpus, whose))
        return lambda: self.noted.append("down")


class Pool(ActorPool):
    """Three engines that answer nothing."""

    starts = 0

    @property
    def spec(self) -> Any:
        return SimpleNamespace(memory=None, log_dir=Path("/logs"))

    @property
    def counted(self) -> tuple[float, Computes]:
        return 3.0, "teacher"

    def new_actors(self) -> list[Any]:
        self.starts += 1
        return [SimpleNamespace(ready=_Reference(), close=_Reference()) for _ in range(3)]


def test_engines_start_once_and_are_counted_until_they_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(actor_pool, "ray", SimpleNamespace(get=lambda refs, **_: refs, kill=killed.append))
    clock = Clock()
    pool = Pool(clock=clock)
    pool.release()
    assert clock.noted == [] and pool.starts == 0
    pool.start()
    pool.start()
    assert pool.starts == 1 and clock.noted == [(3.0, "teacher")]
    pool.release()
    pool.release()
    assert clock.noted == [(3.0, "teacher"), "down"] and len(killed) == 3


def _every_ray_error() -> list[RayError]:
    """One of each class that Ray raises at a `get`, made without its constructor."""
    classes = [each for _, each in inspect.getmembers(ray.exceptions, inspect.isclass) if issubclass(each, RayError)]
    found = []
    for each in classes:
        error = each.__new__(each)
        error.args = ("gone",)
        error.__dict__.update(cause=None)
        found.append(error)
    return found


class _Reference(SimpleNamespace):
    def __getattr__(self, _: str) -> Any:
        return lambda *args, **kwargs: None


@pytest.mark.parametrize("error", _every_ray_error(), ids=lambda error: type(error).__name__)
def test_a_pool_turns_every_error_of_ray_into_one_of_ours(error: RayError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fill goes on with new engines after any of them, and its engines are let go of."""
    monkeypatch.setattr(type(error), "__str__", lambda _: "gone", raising=False)

    def get(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(actor_pool.ray, "get", get)
    monkeypatch.setattr(actor_pool.ray, "kill", lambda _: get())
    pool = Pool()
    pool._actors = [SimpleNamespace(close=_Reference())]  # type: ignore[list-item]
    with pytest.raises(DistillError) as told:
        pool.ask([])
    expected = DistillError if isinstance(error, deaths.CLUSTER_LOST) else EngineError
    assert type(told.value) is expected
    assert pool._actors == []
