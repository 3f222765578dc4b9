"""One piece of work in a process of its own, on whatever device the cluster gives it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
from ray.exceptions import RayError

from configs import DistillError
from configs.models import Device
from orchestration.cluster.deaths import lost
from orchestration.cluster.pulse import Life, Watch

POLL_S = 0.5

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Apart:
    """How a piece of work runs in its process, and how its end is reported.

    With `cpus` None it reserves no CPU and chooses its number of threads itself: for work that everything else waits
    for. `what` names it in an error of the kind `failure`.
    """

    what: str
    failure: type[DistillError]
    accelerator: Device
    cpus: int | None
    log_file: Path


def run_apart(
    function: Callable[[_Given], _Result],
    given: _Given,
    *,
    apart: Apart,
    meanwhile: Callable[[], None] = lambda: None,
) -> _Result:
    """`function(given)` in a worker of the cluster, tried once; `meanwhile` is called now and then until it is done.

    Raises:
        DistillError: as the function raised it; `apart.failure` for anything else that ended it, or where its process
            is silent.
    """
    # Threads that spin at every barrier starve each other when anything else runs on the machine.
    environment = {"GOMP_SPINCOUNT": "1000"} | ({} if apart.cpus is None else {"OMP_NUM_THREADS": str(apart.cpus)})
    started = ray.remote(Worker).options(
        max_restarts=0,
        num_cpus=apart.cpus or 0,
        num_gpus=1 if apart.accelerator == "gpu" else 0,
        runtime_env={"env_vars": environment},
    )
    worker = None
    try:
        watch = Watch(1)
        worker = started.remote(watch.lives[0])
        up, reference = worker.up.remote(), worker.work.remote(function, given)
        lives = False
        while not ray.wait([reference], timeout=POLL_S)[0]:
            meanwhile()
            # One that still waits for a CPU or a GPU has nothing to say.
            lives = lives or bool(ray.wait([up], timeout=0)[0])
            if lives and watch.silent():
                _end(worker)
                raise apart.failure(
                    f"{apart.what} said nothing for {watch.after_s:.0f} s, so its process is stopped or hangs: it is "
                    f"ended; its log is in {apart.log_file}"
                )
        result: _Result = ray.get(reference)
    except RayError as error:
        _end(worker)
        raise lost(error, what=apart.what, fit=None, log=apart.log_file, kind=apart.failure) from error
    watch.end()
    return result


def _end(worker: ray.actor.ActorHandle | None) -> None:
    """End the process now: an error keeps whoever raised it, and with it the handle that Ray waits to see go."""
    if worker is not None:
        with suppress(RayError):
            ray.kill(worker)


class Worker:
    """A process for one piece of work: an actor, because Ray can end that also where it is stopped."""

    def __init__(self, life: Life) -> None:
        life.beat()

    def up(self) -> None:
        """Return when the process is there."""

    def work(self, function: Callable[[_Given], _Result], given: _Given) -> _Result:
        """`function(given)`."""
        return function(given)
