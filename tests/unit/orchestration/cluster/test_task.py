"""One piece of work in a process of its own: what it reserves, and what becomes of its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from configs import DistillError, ModelError, TrainingError
from orchestration.cluster import task
from orchestration.cluster.task import Apart, run_apart

APART = Apart("the work", TrainingError, "cpu", 3, Path("/runs/x/logs/work.log"))


class Ray:
    """Runs what it is given at the `get`, after some waits, and notes the options."""

    def __init__(self, *, waits: int = 0, error: Exception | None = None) -> None:
        self.options: dict[str, Any] = {}
        self._waits, self._error = waits, error

    def remote(self, function: Any) -> Any:
        def options(**chosen: Any) -> Any:
            self.options = chosen
            return SimpleNamespace(remote=lambda given: (function, given))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        self._waits -= 1
        return ([], references) if self._waits >= 0 else (references, [])

    def get(self, reference: Any) -> Any:
        if self._error is not None:
            raise self._error
        function, given = reference
        return function(given)


def run(ray: Ray, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The result of squaring 7, and how often `meanwhile` was called."""
    monkeypatch.setattr(task, "ray", ray)
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
    assert (ray.options["num_cpus"], ray.options["num_gpus"], ray.options["max_retries"]) == (cpus, gpus, 0)
    environment = ray.options["runtime_env"]["env_vars"]
    assert (environment["GOMP_SPINCOUNT"], environment.get("OMP_NUM_THREADS")) == ("1000", threads)


def test_an_error_of_ours_comes_back_and_any_other_is_one_of_the_kind_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = ModelError("no config.json")
    with pytest.raises(ModelError) as same:
        run(Ray(error=RayTaskError("f", "traceback", ours)), APART, monkeypatch)
    assert same.value is ours
    with pytest.raises(DistillError, match=r"^the work was killed .*its log is in /runs/x/logs$") as killed:
        run(Ray(error=WorkerCrashedError()), APART, monkeypatch)
    assert type(killed.value) is TrainingError
