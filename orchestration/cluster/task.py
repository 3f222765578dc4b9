"""One piece of work in a process of its own, on whatever device the cluster gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
from ray.exceptions import RayError

from configs import DistillError
from configs.models import Device
from orchestration.cluster.deaths import lost

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
        DistillError: as the function raised it; `apart.failure` for anything else that ended it.
    """
    # Threads that spin at every barrier starve each other when anything else runs on the machine.
    environment = {"GOMP_SPINCOUNT": "1000"} | ({} if apart.cpus is None else {"OMP_NUM_THREADS": str(apart.cpus)})
    task = ray.remote(function).options(
        max_retries=0,
        num_cpus=apart.cpus or 0,
        num_gpus=1 if apart.accelerator == "gpu" else 0,
        runtime_env={"env_vars": environment},
    )
    try:
        reference = task.remote(given)
        while not ray.wait([reference], timeout=POLL_S)[0]:
            meanwhile()
        result: _Result = ray.get(reference)
    except RayError as error:
        raise lost(error, what=apart.what, fit=None, log=apart.log_file, kind=apart.failure) from error
    return result
