"""A pipeline that fills a cache, for tests that run two of them or kill one.

`python fill_process.py <kind> <root> <first> <count> <seconds a row> <die after>` prints `ready`, waits for a line, and
fills the rows of the prompts `first`, `first` + 1, ..., or the two `signals` of each of these texts; with `die after` above 0 it prints `dying` at that outcome,
waits for another line and kills itself. At the end it prints as JSON what it asked the teacher for and what `fill` said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from local_engines import EOS, IDENTITY, VOCAB, LocalEngines, Watched
from local_signals import STATE, LocalSignals, SignalFilling, WatchedSignals, signal_set
from signal_builders import CLASSES

from cache import GenerateRequest, SignalRequest, TeacherCache
from cache.answers import Request
from orchestration.fill import engine_loop
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, fill
from orchestration.outputs.console import StageProgress
from orchestration.plan.requests import SequenceSet, plan_fill

K = 4


def shared_requests(first: int, count: int) -> tuple[Request, ...]:
    """The requests of a process."""
    return tuple(
        GenerateRequest(prompt_ids=(number, number), stop_ids=(EOS,), max_new_tokens=12)
        for number in range(first, first + count)
    )


def shared_signals(first: int, count: int) -> tuple[SignalRequest, ...]:
    """The requests of a process that asks for signals: two a text."""
    return signal_set(count, CLASSES, STATE, first=first).requests


def main(kind: str, root: Path, first: int, count: int, row_s: float, die_after: int) -> None:
    engine_loop.REPORT_EVERY_S = 0.05

    def at_outcome(number: int) -> None:
        time.sleep(row_s)
        if number == die_after > 0:
            sys.stdout.write("dying\n")
            sys.stdout.flush()
            sys.stdin.readline()
            os.kill(os.getpid(), signal.SIGKILL)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    report = (_signals if kind == "signals" else _sequences)(root, first, count, at_outcome)
    sys.stdout.write(json.dumps(report) + "\n")


def _signals(root: Path, first: int, count: int, at_pass: Callable[[int], None]) -> dict[str, object]:
    engines = LocalSignals(WatchedSignals(at_pass=at_pass))
    part = signal_set(count, CLASSES, STATE, first=first)
    result = SignalFilling(root).fill(part, engines=engines, commit_every_s=0.0)
    asked = [request.token_ids[0] - 100 for request in engines.teacher.read]
    return {"asked": asked, "rows": result.rows, "from_others": result.from_others}


def _sequences(root: Path, first: int, count: int, at_outcome: Callable[[int], None]) -> dict[str, object]:
    cache = TeacherCache.open(root, IDENTITY)
    engines = LocalEngines(Watched(at_outcome=at_outcome))
    result = fill(
        plan_fill([SequenceSet("teacher", "train", shared_requests(first, count), K)], cache=cache),
        cache=cache,
        engines=engines,
        order=FillOrder(False, root, 0, 0.0, None, {}, root.parent / "ledger"),
        budgets=Budgets(None, None),
        vocab=VOCAB,
        progress=StageProgress("fill", total=None, unit="rows", started=time.monotonic()),
    )
    asked = [request.prompt_ids[0] for request in engines.teacher.asked if isinstance(request, GenerateRequest)]
    return {"asked": asked, "rows": result.rows, "from_others": result.from_others}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
