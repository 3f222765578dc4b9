"""A driver that trains stages under Ray in warm groups: `python ray_driver.py <job file> <trouble>`.

The file holds jobs, which are trained one after the other. At the third step of the last but one there is `trouble`:
`lost` kills one worker; `stopped` gets a SIGTERM itself, as the command line would, which ends the driver; `killed`
kills the driver; `none`. With `together` all are trained at the same time instead, as far as there is room. What became of each stage is a line of JSON: how it ended, how long after the trouble, the
workers' ids, and how many bytes they hold once it is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from orchestration.environment import prepare_environment

TROUBLE_AFTER = 3
ENDS_WITHIN_S = 20.0


def workers() -> dict[int, int]:
    """The bytes that each process of a group of this driver holds, by its id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("TrainingWorker" in part for part in process.cmdline()):
                found[process.pid] = process.memory_info().rss
    return dict(sorted(found.items()))


def left(*, ended: bool) -> dict[int, int]:
    """The workers after a stage; those of a group that was ended have some seconds to go."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while ended and workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    return workers()


def main() -> None:
    prepare_environment(ray_address=None)
    from configs.errors import DistillError
    from orchestration.cluster.private import cluster
    from orchestration.cluster.warm_groups import WarmGroups
    from orchestration.cluster.worker_group import GroupShape
    from student_train.job import StepMetrics, TrainJob

    job_file, trouble = Path(sys.argv[1]), sys.argv[2]
    jobs: list[TrainJob] = pickle.loads(job_file.read_bytes())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    struck: list[float] = []

    def strike(metrics: StepMetrics) -> None:
        if metrics.step < TROUBLE_AFTER or struck or trouble == "none":
            return
        struck.append(time.monotonic())
        _tell({"struck": list(workers())})
        if trouble == "lost":
            os.kill(max(workers()), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGTERM if trouble == "stopped" else signal.SIGKILL)

    groups = WarmGroups(job_file.parent / "meetings")

    def train(job: TrainJob, on_step: Callable[[StepMetrics], None] = _watch) -> None:
        groups.train(
            job,
            shape=GroupShape(job.settings.workers, job.settings.cpus_per_worker, "cpu"),
            log_dir=job_file.parent / "logs",
            on_step=on_step,
            meanwhile=lambda: None,
        )

    with cluster(address=None, gpus=0):
        if trouble == "together":
            with ThreadPoolExecutor(len(jobs)) as threads:
                list(threads.map(train, jobs))
            _tell({"left": left(ended=False)})
            jobs = []
        for number, job in enumerate(jobs):
            ended, started = "finished", time.monotonic()
            try:
                train(job, strike if number == len(jobs) - 2 else _watch)
            except (DistillError, KeyboardInterrupt) as error:
                ended = f"{type(error).__name__}: {error}"
            since = time.monotonic() - (struck[0] if struck and ended != "finished" else started)
            _tell({"ended": ended, "seconds": since, "left": left(ended=ended != "finished")})
            if ended.startswith("KeyboardInterrupt"):
                break
        groups.close()


def _tell(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _watch(_: object) -> None:
    """Nothing happens in this stage."""


if __name__ == "__main__":
    main()
