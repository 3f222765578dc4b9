"""What a fill takes of memory and processor beside its engines: N rows and twice as many, each in its own process.

Everything but the engine is what every fill has: prompts that lie in a file, lots, claims, the queue, segments, the
ledger, and the looks into the cache before, ahead, behind and after. The engine says at once the same short answer to
everything, and asks for the next rows when few wait, as a pool of engines does.

Two other benchmarks of a fill take from here the order that they give, and the look whether all of it was done. The
modules behind it are imported late: an engine's environment has to stand before its libraries are imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.measurement import Measurement, at_most

if TYPE_CHECKING:
    from cache import GenerateRequest
    from cache.answers import Request
    from cache.protocols import Outcome
    from orchestration.fill.engine_loop import FillOrder, FillProgress
    from orchestration.plan.requests import SequenceSet
    from teacher_server.requests import Asked

ROWS, TIMES = 100_000, 3
PROMPT, ANSWER, K, VOCAB = 32, 4, 8, 512
AT_ONCE = 256
"""Answers of one step of the engine."""

MOST_BYTES_A_ROW = 200
"""Ten million rows in two gigabytes, the cache's own index included."""


def bench_fills() -> Iterator[Measurement]:
    """Peak memory and processor time of a further row, and what of it the fill takes while engines wait."""
    few, many = (_measured(rows) for rows in (ROWS, TIMES * ROWS))
    further = (TIMES - 1) * ROWS
    yield at_most(
        f"memory of a further row of a fill of {TIMES * ROWS:,}",
        (many["peak_bytes"] - few["peak_bytes"]) / further,
        MOST_BYTES_A_ROW,
        unit="B",
        digits=0,
        peers={"peak of it, MB": many["peak_bytes"] / 1e6, f"of {ROWS:,}, MB": few["peak_bytes"] / 1e6},
    )
    yield Measurement(
        "processor time of a further row",
        1e6 * (many["cpu_s"] - few["cpu_s"]) / further,
        "us",
        digits=0,
        peers={f"a row of {ROWS:,}": 1e6 * few["cpu_s"] / ROWS},
        note="the making of answers and their packing included, which processes of engines do",
    )
    yield Measurement(
        "of it naming, claiming and looking, beside the engines",
        1e6 * (many["beside_s"] - few["beside_s"]) / further,
        "us",
        digits=0,
        peers={f"a row of {ROWS:,}": 1e6 * few["beside_s"] / ROWS},
    )


def _measured(rows: int) -> dict[str, float]:
    """What a process of its own says."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.fills", folder, str(rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill_order(root: Path, *, k: int) -> FillOrder:
    """Write what is answered into a new cache below `root`."""
    from orchestration.fill.engine_loop import FillOrder

    return FillOrder(
        scoring=False,
        cache_root=root / "cache",
        k=k,
        commit_every_s=5.0,
        licence=None,
        provenance={},
        ledger=root / "ledger",
    )


def require_all(done: FillProgress, *, rows: int) -> None:
    """A fill that kept less was no fill to measure."""
    if done.committed_rows != rows:
        raise RuntimeError(f"the fill kept {done.committed_rows} of {rows} rows")


class Ready:
    """An engine that has said it all before: `ANSWER` tokens, the same to everybody, as soon as they are asked for."""

    def __init__(self) -> None:
        from benchmarks.synthetic import TEACHER
        from cache import GenerateRequest, TeacherRecord
        from teacher_server import FakeTeacher

        self.identity = TEACHER
        teacher = FakeTeacher(TEACHER, vocab=VOCAB, eos_id=2, max_model_len=2 * PROMPT)
        [(_, record)] = teacher.generate([GenerateRequest((1, 5), (), ANSWER)], k=K)
        assert isinstance(record, TeacherRecord)
        self._record = record

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `StepwiseSource.work`."""
        step: list[Outcome] = []
        for place, each in enumerate(asked):
            assert each is not None
            step.append((place, self._answer(each.request)))
            if len(step) == AT_ONCE:
                yield step
                step = []
        yield step

    def _answer(self, request: Request) -> Any:
        import numpy as np

        from cache import GenerateRequest
        from cache.keys import sequence_key

        assert isinstance(request, GenerateRequest)
        ids = np.array([*request.prompt_ids, *self._record.response_ids], dtype=np.int32)
        key = sequence_key(self.identity.digest(), ids, PROMPT)
        return replace(self._record, key=key, token_ids=ids, prompt_len=PROMPT)


class OneEngine:
    """`Engines` of one that is always ready, in this process; `worked_s` is the processor time of its passes."""

    def __init__(self, engine: Ready) -> None:
        self._engine, self.worked_s = engine, 0.0

    def fill(self, work: Any, order: FillOrder, *, token_budget: int | None, **_: object) -> FillProgress:
        """See `orchestration.fill.work.Engines`."""
        from cache import TeacherCache
        from orchestration.cluster.leases import DRAWN_AT_ONCE, ItemQueue
        from orchestration.fill.answers import SequenceAnswers
        from orchestration.fill.engine_loop import EngineLoop

        began = time.process_time()
        cache = TeacherCache.open(order.cache_root, self._engine.identity)
        rows = iter(work)

        class Queue(ItemQueue[Any]):
            """Holds no more than a pool's does."""

            def lease(self) -> list[tuple[int, Any]]:
                waiting, _ = self.add([])
                if waiting < DRAWN_AT_ONCE:
                    self.add(self.drawn())
                return super().lease()

            @staticmethod
            def drawn() -> list[tuple[int, Any]]:
                before = time.process_time()
                more = list(islice(rows, DRAWN_AT_ONCE))
                own.append(time.process_time() - before)
                return more

        own = list[float]()
        queue = Queue((), token_budget=token_budget)
        terms: Any = {"vocab": VOCAB, "licence": None, "provenance": {}, "encoding": order.encoding}
        with cache.writer(**terms) as writer:
            EngineLoop(queue, order, SequenceAnswers(self._engine, writer, k=K)).work()
        self.worked_s += time.process_time() - began - sum(own)
        return queue.progress()


def _rows(count: int) -> SequenceSet:
    """Requests of prompts that differ and lie in a file, as those of an experiment do."""
    from cache import GenerateRequest
    from orchestration.inputs.prompts import Prompt, PromptTable
    from orchestration.plan.asked_rows import AskedRows
    from orchestration.plan.requests import SequenceSet

    def prompt(at: int) -> Prompt:
        return Prompt(at, "", tuple(3 + at // 500**place % 500 for place in range(PROMPT)))

    def asking(prompt: Prompt, _: int) -> GenerateRequest:
        return GenerateRequest(prompt.prompt_ids, (2,), ANSWER)

    return SequenceSet("teacher", "train", AskedRows(PromptTable(map(prompt, range(count))), asking), K)


def _fill(root: Path, rows: int) -> dict[str, float]:
    """Fill so many rows, and say what that took."""
    from benchmarks.prompts import cpu_s, peak_bytes
    from cache import TeacherCache
    from orchestration.fill.fill import Budgets, fill
    from orchestration.outputs.console import StageProgress
    from orchestration.plan.requests import plan_fill

    engine = Ready()
    cache, engines = TeacherCache.open(root / "cache", engine.identity), OneEngine(engine)
    plan = plan_fill([_rows(rows)], cache=cache)
    computed, began = cpu_s(), time.monotonic()
    done = fill(
        plan,
        cache=cache,
        engines=engines,
        order=fill_order(root, k=K),
        budgets=Budgets(None, None),
        vocab=VOCAB,
        progress=StageProgress("fill", total=rows, unit="rows", started=time.monotonic()),
    )
    if done.rows != rows:
        raise RuntimeError(f"the fill kept {done.rows} of {rows} rows")
    took = cpu_s() - computed
    return {
        "cpu_s": took,
        "beside_s": took - engines.worked_s,
        "seconds": time.monotonic() - began,
        "peak_bytes": peak_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(_fill(Path(sys.argv[1]), int(sys.argv[2]))))
