"""Answers texts with one model in a process of its own, as fast as it can: `text_speed` starts it, and takes the time.

A process of its own holds one model and nothing else, so that its peak memory is what serving this model takes, Python
and torch included. It computes on the CPU with as many threads as it is told. One line of JSON asks, one answers; what
libraries print goes to standard error. When the process that asks is gone it ends, whatever it is at.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

LOOK_S = 1.0
"""How often a process looks whether the one that asks is still there."""


def main() -> None:
    """Load the model that the first line names, then answer as many texts at a time as each further line says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(int(first["parent"]),), daemon=True).start()

    import torch

    from configs import DistillError
    from student_train.models.predicting import Predictor

    torch.set_num_threads(int(first["threads"]))
    try:
        predictor = Predictor(Path(first["model"]))
        predictor.predict(first["texts"])
    except DistillError as error:
        _say(answers, {"error": str(error)})
        return
    _say(answers, {"peak_bytes": peak_bytes()})
    for line in sys.stdin:
        batches = batches_of(first["texts"], size=int(json.loads(line)["batch"]))
        started = time.perf_counter()
        for batch in batches:
            predictor.predict(batch)
        seconds = time.perf_counter() - started
        _say(answers, {"text_s": seconds / len(first["texts"]), "peak_bytes": peak_bytes()})


def _end_with(parent: int) -> None:
    """End with the process that asks: while torch is imported, or a model loaded, nobody reads that it has closed."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def batches_of(texts: Sequence[Sequence[str]], *, size: int) -> list[Sequence[Sequence[str]]]:
    """The texts in their order, `size` at a time; what is left over makes the last batch."""
    return [texts[at : at + size] for at in range(0, len(texts), size)]


def peak_bytes() -> int:
    """The most memory that this program has held.

    Not `getrusage`: a process that was started by a larger one inherits that one's peak.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _say(stream: IO[str], said: dict[str, object]) -> None:
    stream.write(json.dumps(said) + "\n")
    stream.flush()
