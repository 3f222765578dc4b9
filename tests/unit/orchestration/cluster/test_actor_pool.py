"""What pools of engines of any kind share: starts that are counted, and deaths. Fills are in test_engine_pool."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions
from pool_builders import surround
from ray.exceptions import RayError

from configs import ConfigError, DistillError, EngineError
from orchestration.cluster import actor_pool, deaths
from orchestration.cluster.actor_pool import ActorPool
from orchestration.cluster.places import Wanted
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
        return 2.0, "teacher"

    @property
    def wanted(self) -> Wanted:
        return Wanted("engines", 3, {"GPU": 2}, "SPREAD", "lower their number")

    def new_actor(self, index: int, *, life: Any, options: dict[str, Any]) -> Any:
        assert (options["num_gpus"], options["num_cpus"]) == (2, 0)
        self.starts += index == 0
        return SimpleNamespace(ready=_Reference(), close=_Reference())


def test_engines_start_once_and_are_counted_until_they_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    around = surround(monkeypatch)
    fake = SimpleNamespace(get=lambda refs, **_: refs, wait=lambda refs, **_: (refs, []), kill=killed.append)
    monkeypatch.setattr(actor_pool, "ray", fake)
    clock = Clock()
    pool = Pool(clock=clock)
    pool.release()
    assert clock.noted == [] and pool.starts == 0
    pool.start()
    pool.start()
    assert pool.starts == 1 and clock.noted == [(6.0, "teacher")]
    pool.release()
    pool.release()
    assert clock.noted == [(6.0, "teacher"), "down"] and len(killed) == 3
    assert len(around.released) == around.ended == 1


class Rays:
    """Ray, as far as pools use it; actors that are to be waited for are noted, and so are those that are killed."""

    def __init__(self) -> None:
        self.killed: list[Any] = []
        self.awaited = self.asked = 0

    def wait(self, references: Any, **_: object) -> tuple[Any, list[Any]]:
        self.awaited += 1
        return references, []

    def get(self, references: Any, **_: object) -> Any:
        self.asked += 1
        return references

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


def test_engines_that_begin_are_waited_for_by_whoever_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    around, rays, clock = surround(monkeypatch), Rays(), Clock()
    monkeypatch.setattr(actor_pool, "ray", rays)
    told: list[tuple[float, float]] = []
    pool = Pool(clock=clock, started=lambda began, ended: told.append((began, ended)))
    pool.begin()
    pool.begin()
    assert pool.starts == 1 and rays.awaited == 0 and not pool.is_up and clock.noted == [(6.0, "teacher")]
    assert around.waited == []
    pool.start()
    assert pool.starts == 1 and rays.awaited == 1 and pool.is_up and around.waited == [pool.wanted]
    pool.begin()
    pool.start()
    assert pool.starts == 1 and rays.awaited == 1
    assert len(around.wanted) == 1
    ((began, ended),) = told
    assert 1e9 < began <= ended


def test_engines_that_only_begin_are_ended_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    around, rays, clock = surround(monkeypatch), Rays(), Clock()
    monkeypatch.setattr(actor_pool, "ray", rays)
    pool = Pool(clock=clock)
    pool.begin()
    pool.release()
    # An engine that starts hears nothing, and whoever ends it would wait in vain for its answer.
    assert rays.asked == 0 and len(rays.killed) == 3 and clock.noted == [(6.0, "teacher"), "down"]
    assert len(around.released) == 1
    pool.start()
    assert pool.starts == 2 and pool.is_up


@pytest.mark.parametrize("method", ["begin", "start"])
@pytest.mark.parametrize("error", [ConfigError("no room"), ray.exceptions.RayActorError()])
def test_what_goes_wrong_at_the_beginning_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    around = surround(monkeypatch)
    monkeypatch.setattr(actor_pool, "ray", Rays())

    def gone(*_: object, **__: object) -> None:
        raise error

    pool = Pool()
    monkeypatch.setattr(actor_pool, "Watch", gone)
    with pytest.raises(DistillError):
        getattr(pool, method)()
    assert not pool.is_up and pool._places is None and pool._actors == [] and len(around.released) == 1


def test_places_that_are_gone_by_the_time_that_engines_are_needed_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around, rays = surround(monkeypatch), Rays()
    monkeypatch.setattr(actor_pool, "ray", rays)
    pool = Pool()
    pool.begin()

    def gone(*_: object) -> None:
        raise ConfigError("a machine went")

    monkeypatch.setattr(actor_pool, "wait_for", gone)
    with pytest.raises(ConfigError, match="a machine went"):
        pool.start()
    assert len(rays.killed) == 3 and len(around.released) == 1 and pool._actors == []


def test_a_cluster_that_is_gone_when_places_are_taken_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch)

    def gone(*_: object, **__: object) -> None:
        raise ray.exceptions.RayActorError()

    monkeypatch.setattr(actor_pool, "Watch", gone)
    pool = Pool()
    with pytest.raises(EngineError, match="inference engine"):
        pool.start()
    assert pool._places is None and pool.starts == 0


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
    monkeypatch.setattr(actor_pool.ray, "wait", lambda references, **_: (references, []))
    monkeypatch.setattr(actor_pool.ray, "kill", lambda _: get())
    pool = Pool()
    pool._actors = [SimpleNamespace(close=_Reference())]  # type: ignore[list-item]
    with pytest.raises(DistillError) as told:
        pool.ask([])
    expected = DistillError if isinstance(error, deaths.CLUSTER_LOST) else EngineError
    assert type(told.value) is expected
    assert pool._actors == []
