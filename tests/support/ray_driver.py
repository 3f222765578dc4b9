"""A driver that trains a stage under Ray and meets with trouble: `python ray_driver.py <job file> <trouble>`.

`lost` kills one worker after the third step; `stopped` gets a SIGTERM itself, as the command line would. How it ended
and how long the end took is written as JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import psutil

from orchestration.environment import prepare_environment

TROUBLE_AFTER = 3


def main() -> None:
    prepare_environment(ray_address=None)
    from configs.errors import DistillError
    from orchestration.cluster.private import cluster
    from orchestration.cluster.worker_group import train_in_group
    from student_train.job import StepMetrics

    job_file, trouble = Path(sys.argv[1]), sys.argv[2]
    job = pickle.loads(job_file.read_bytes())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    struck: list[float] = []

    def on_step(metrics: StepMetrics) -> None:
        if metrics.step < TROUBLE_AFTER or struck:
            return
        struck.append(time.monotonic())
        if trouble == "stopped":
            os.kill(os.getpid(), signal.SIGTERM)
            return
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if any("RayTrainWorker" in part for part in process.cmdline())
        ]
        assert len(workers) == job.settings.workers, [process.cmdline() for process in workers]
        workers[-1].kill()

    ended = "finished"
    with cluster(address=None, gpus=0):
        try:
            train_in_group(job, log_dir=job_file.parent, accelerator="cpu", on_step=on_step, meanwhile=lambda: None)
        except (DistillError, KeyboardInterrupt) as error:
            ended = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - struck[0]
    sys.stdout.write(json.dumps({"ended": ended, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
