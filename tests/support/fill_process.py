"""A pipeline that fills a cache, for tests that run two of them or kill one.

`python fill_process.py <root> <first> <count> <seconds a row> <die after>` prints `ready`, waits for a line, and
fills the rows of the prompts `first`, `first` + 1, ...; with `die after` above 0 it prints `dying` at that outcome,
waits for another line and kills itself. At the end it prints as JSON what it asked the teacher for and what `fill` said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from local_engines import EOS, IDENTITY, VOCAB, LocalEngines, Watched

from cache import GenerateRequest, TeacherCache
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


def main(root: Path, first: int, count: int, row_s: float, die_after: int) -> None:
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
    report = {"asked": asked, "rows": result.rows, "from_others": result.from_others}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
