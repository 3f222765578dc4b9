"""One piece of work in a process of its own: what it reserves, and what becomes of its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pool_builders import QuietLife
from ray.exceptions import RayTaskError, WorkerCrashedError

from configs import DistillError, ModelError, TrainingError
from orchestration.cluster import task
from orchestration.cluster.pulse import SILENT_AFTER_S
from orchestration.cluster.task import Apart, run_apart

APART = Apart("the work", TrainingError, "cpu", 3, Path("/runs/x/logs/work.log"))


class Ray:
    """Runs what it is given at the `get`, after some waits, and notes the options."""

    def __init__(self, *, waits: int = 0, error: Exception | None = None) -> None:
        self.options: dict[str, Any] = {}
        self.killed = 0
        self.placed = True
        self._waits, self._error = waits, error

    def remote(self, function: Any) -> Any:
        def options(**chosen: Any) -> Any:
            self.options = chosen
            return SimpleNamespace(remote=started)

        def started(life: QuietLife) -> Any:
            worker = function(life)
            assert life.beats == 1
            work = SimpleNamespace(remote=lambda given, value: (worker.work, given, value))
            return SimpleNamespace(work=work, up=SimpleNamespace(remote=lambda: worker.up))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        if timeout == 0:
            return (references, []) if self.placed else ([], references)
        self._waits -= 1
        return ([], references) if self._waits >= 0 else (references, [])

    def get(self, reference: Any) -> Any:
        if self._error is not None:
            raise self._error
        work, function, given = reference
        return work(function, given)

    def kill(self, _: Any) -> None:
        self.killed += 1


def run(ray: Ray, apart: Apart, monkeypatch: pytest.MonkeyPatch, *, silent: bool = False) -> tuple[int, int]:
    """The result of squaring 7, and how often `meanwhile` was called."""
    monkeypatch.setattr(task, "ray", ray)
    watch = SimpleNamespace(
        lives=[QuietLife()], silent=lambda: [0] if silent else [], end=lambda: None, after_s=SILENT_AFTER_S
    )
    monkeypatch.setattr(task, "Watch", lambda count: watch)
    looks: list[None] = []
    result = run_apart(lambda given: given**2, 7, apart=apart, meanwhile=lambda: looks.append(None))
    return result, len(looks)


@pytest.mark.parametrize(
    ("changes", "cpus", "gpus", "threads"),
    [({}, 3, 0, "3"), ({"accelerator": "gpu"}, 3, 1, "3"), ({"cpus": None}, 0, 0, None)],
)
def test_it_reserves_what_it_needs(
    changes: dict[str, Any], cpus: int, gpus: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Ray(waits=2)
    assert run(ray, replace(APART, **changes), monkeypatch) == (49, 2)
    assert (ray.options["num_cpus"], ray.options["num_gpus"], ray.options["max_restarts"]) == (cpus, gpus, 0)
    environment = ray.options["runtime_env"]["env_vars"]
    assert (environment["GOMP_SPINCOUNT"], environment.get("OMP_NUM_THREADS")) == ("1000", threads)


def test_an_error_of_ours_comes_back_and_any_other_is_one_of_the_kind_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = ModelError("no config.json")
    with pytest.raises(ModelError) as same:
        run(Ray(error=RayTaskError("f", "traceback", ours)), APART, monkeypatch)
    assert same.value is ours
    crashed = Ray(error=WorkerCrashedError())
    with pytest.raises(DistillError, match=r"^the work was killed .*its log is in /runs/x/logs$") as killed:
        run(crashed, APART, monkeypatch)
    assert type(killed.value) is TrainingError and crashed.killed == 1


def test_a_process_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray(waits=3)
    with pytest.raises(TrainingError, match=r"^the work said nothing for 300 s, .*its log is in /runs/x/logs/work.log"):
        run(ray, APART, monkeypatch, silent=True)
    assert ray.killed == 1


def test_work_that_waits_for_its_place_is_not_taken_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray(waits=3)
    ray.placed = False
    assert run(ray, APART, monkeypatch, silent=True) == (49, 3)
