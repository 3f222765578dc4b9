"""One piece of work in a process of its own, on whatever device the cluster gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ray
from ray.exceptions import RayError

from configs import DistillError
from configs.models import Device
from orchestration.cluster.deaths import lost

POLL_S = 0.5

Given = TypeVar("Given")
Result = TypeVar("Result")


def run_apart(
    function: Callable[[Given], Result],
    given: Given,
    *,
    cpus: int | None,
    accelerator: Device,
    failure: type[DistillError],
    what: str,
    log_file: Path,
    meanwhile: Callable[[], None] = lambda: None,
) -> Result:
    """`function(given)` in a worker of the cluster, tried once; `meanwhile` is called now and then until it is done.

    With `cpus` None it waits for no CPU and chooses its threads by itself: for work while everything else waits for it.

    Raises:
        DistillError: as the function raised it; `failure` about `what` for anything else that ended it.
    """
    # Threads that spin at every barrier starve each other when anything else runs on the machine.
    environment = {"GOMP_SPINCOUNT": "1000"} | ({} if cpus is None else {"OMP_NUM_THREADS": str(cpus)})
    task = ray.remote(function).options(
        max_retries=0,
        num_cpus=cpus or 0,
        num_gpus=1 if accelerator == "gpu" else 0,
        runtime_env={"env_vars": environment},
    )
    try:
        reference = task.remote(given)
        while not ray.wait([reference], timeout=POLL_S)[0]:
            meanwhile()
        result: Result = ray.get(reference)
    except RayError as error:
        raise lost(error, what=what, fit=None, log=log_file, kind=failure) from error
    return result
