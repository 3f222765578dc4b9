"""Engines for fills without Ray: the real queue and the real loop around a teacher that runs in this process.

`python local_engines.py <file>` is one such pass in a process of its own, for tests that kill it (`killed_passes`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from killed_passes import read_pass

from cache import GenerateRequest, ScoreRequest, SegmentWriter, TeacherCache, TeacherIdentity
from cache.answers import Request
from cache.protocols import Outcome
from configs import EngineError
from orchestration.cluster.leases import ItemQueue
from orchestration.fill.answers import SequenceAnswers, StepwiseSource
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress, Item, Leases
from orchestration.outputs.console import ProgressSink
from teacher_server import FakeTeacher
from teacher_server.requests import Asked

VOCAB = 64
EOS = 2
MAX_MODEL_LEN = 48
IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")


def fake_teacher() -> FakeTeacher:
    return FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=EOS, max_model_len=MAX_MODEL_LEN)


def lease_queue(work: Sequence[tuple[int, Item]], *, token_budget: int | None, engines: int = 1) -> Any:
    """The real queue as a plain object; Ray makes an actor of the same class."""
    return ItemQueue(list(work), token_budget=token_budget, engines=engines)


@dataclass(slots=True)
class Watched:
    """A teacher that writes down what it is asked, and does something at the n-th outcome.

    It finishes `at_once` answers in every step.
    """

    teacher: FakeTeacher = field(default_factory=fake_teacher)
    at_outcome: Callable[[int], None] = lambda _: None
    asked: list[Request] = field(default_factory=list)
    identity: TeacherIdentity = IDENTITY
    at_once: int = 1

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        step: list[Outcome] = []
        for count, [outcome] in enumerate(self.teacher.work(self._noted_each(asked))):
            self.at_outcome(count)
            step.append(outcome)
            if len(step) == self.at_once:
                yield step
                step = []
        if step:
            yield step

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Generator[Outcome, None, None]:
        yield from self._watch(self.teacher.generate(self._noted(requests), k=k))

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Generator[Outcome, None, None]:
        yield from self._watch(self.teacher.score(self._noted(requests), k=k))

    def _noted_each(self, asked: Iterable[Asked | None]) -> Iterator[Asked]:
        for each in asked:
            assert each is not None
            self.asked.append(each.request)
            yield each

    def _noted(self, requests: Iterable[Any]) -> Iterator[Any]:
        for request in requests:
            self.asked.append(request)
            yield request

    def _watch(self, outcomes: Iterator[Outcome]) -> Generator[Outcome, None, None]:
        for count, outcome in enumerate(outcomes):
            self.at_outcome(count)
            yield outcome


def run_engine_loop(
    queue: Leases[Request], order: FillOrder, teacher: Callable[[SegmentWriter], StepwiseSource]
) -> None:
    """One engine's pass, as the engine's actor does it."""
    cache = TeacherCache.open(order.cache_root, IDENTITY)
    with cache.writer(
        vocab=VOCAB, licence=order.licence, provenance=order.provenance, encoding=order.encoding
    ) as writer:
        EngineLoop(queue, order, SequenceAnswers(teacher(writer), writer, k=order.k)).work()


class OnePass(Protocol):
    """Engines of tests: a pass in this process over a part of the work, with the real queue."""

    budgets: list[tuple[int | None, float | None]]
    """Those of each pass: tokens and seconds."""

    def lease(self, work: Sequence[Any], *, token_budget: int | None) -> Any:
        """The queue of what this pass takes."""
        ...

    def answer(self, queue: Leases[Any], order: FillOrder) -> None:
        """Answer what lies in it."""
        ...

    def fill(
        self,
        work: Iterable[Any],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """See `orchestration.fill.work.Engines`."""
        self.budgets.append((token_budget, seconds_budget))
        queue = self.lease(list(work), token_budget=token_budget)
        self.answer(queue, order)
        done: FillProgress = queue.progress()
        progress.update(done.rows, tokens=done.response_tokens)
        return done


@dataclass(slots=True)
class LocalEngines(OnePass):
    """`Engines` with one teacher in this process. `rows_a_pass` leaves the rest of the work to the next pass."""

    teacher: Watched = field(default_factory=Watched)
    rows_a_pass: int | None = None
    budgets: list[tuple[int | None, float | None]] = field(default_factory=list)
    orders: list[FillOrder] = field(default_factory=list)

    def lease(self, work: Sequence[Any], *, token_budget: int | None) -> Any:
        return lease_queue(work[: self.rows_a_pass], token_budget=token_budget)

    def answer(self, queue: Leases[Any], order: FillOrder) -> None:
        self.orders.append(order)
        run_engine_loop(queue, order, lambda _: self.teacher)


def refusing(reason: str) -> Callable[[int], None]:
    """For `Watched.at_outcome`: an engine that dies at its first outcome."""

    def die(_: int) -> None:
        raise EngineError(reason)

    return die


def main(path: Path) -> None:
    task = read_pass(path)

    def teacher(writer: SegmentWriter) -> StepwiseSource:
        return Watched(at_outcome=task.at(writer.commit))

    run_engine_loop(lease_queue(task.work, token_budget=None), task.order, teacher)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
