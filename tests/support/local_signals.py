"""Engines for signals without Ray: the real queue and the real loop around a teacher that runs in this process.

`python local_signals.py <file>` is one such pass in a process of its own, for tests that kill it (`killed_passes`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from killed_passes import read_pass
from local_engines import IDENTITY, OnePass, lease_queue
from signal_builders import CLASSES, TAGS, respond

from cache import Signal, SignalRecord, SignalRequest, SignalWriter, TeacherCache
from cache.disk.local_storage import LocalStorage
from cache.disk.spending import Spent
from cache.failures import Failures
from cache.protocols import Failure
from orchestration.fill.answers import SignalAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, Leases, Questions
from orchestration.fill.fill import Budgets, FillResult, fill_signals
from orchestration.fill.signals import items_of
from orchestration.fill.work import Engines
from orchestration.inputs.task_texts import ReadExample
from orchestration.outputs.console import StageProgress
from orchestration.plan.signal_requests import RefusedSignals, SignalPlan, SignalSet, SignalWidths, plan_signals

LONGEST = 12
WIDTHS = SignalWidths(labels=6, hidden=4)
STATE = Signal("state", layer=1, position="first")
ALL = (CLASSES, TAGS, STATE)
UNLIMITED = Budgets(None, None)

Outcome = tuple[int, SignalRecord | Failure]


def texts(count: int, *, first: int = 0, tokens: int = 5) -> tuple[ReadExample, ...]:
    """Texts of so many tokens; text i is the same in every call."""
    return tuple(
        ReadExample((100 + at, *[7] * (tokens - 1)), tokens, ((0, 0),), (0,), (0,), cut=False)
        for at in range(first, first + count)
    )


def signal_set(count: int, *signals: Signal, first: int = 0, tokens: int = 5, name: str = "train") -> SignalSet:
    return SignalSet(name, texts(count, first=first, tokens=tokens), signals or ALL)


@dataclass(slots=True)
class WatchedSignals:
    """A teacher that writes down the texts that it reads, and does something before the n-th of its passes.

    Its answers are random but the same for the same request; it reads `LONGEST` tokens, one text a pass.
    """

    at_pass: Callable[[int], None] = lambda _: None
    read: list[SignalRequest] = field(default_factory=list)
    asked: list[SignalRequest] = field(default_factory=list)

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[Outcome]]:
        numbered = enumerate(requests)
        for count, (_, of_text) in enumerate(groupby(numbered, key=lambda each: each[1].token_ids)):
            self.at_pass(count)
            asked = list(of_text)
            self.asked += [request for _, request in asked]
            self.read.append(asked[0][1])
            yield [(number, self.answer(request)) for number, request in asked]

    def answer(self, request: SignalRequest) -> SignalRecord | Failure:
        if len(request.token_ids) > LONGEST:
            return Failure(f"{len(request.token_ids)} tokens, and the model reads {LONGEST}")
        return respond(request, width=WIDTHS.of(request.signal), identity=IDENTITY)


def run_signal_loop(
    queue: Leases[Questions], order: FillOrder, teacher: Callable[[SignalAnswers], WatchedSignals]
) -> None:
    """One engine's pass, as the engine's actor does it; `teacher` is given what keeps its answers."""
    store = TeacherCache.open(order.cache_root, IDENTITY).signals
    with ExitStack() as stack:

        def writer() -> SignalWriter:
            made = store.writer(encoding=order.encoding, provenance=order.provenance, licence=order.licence)
            return stack.enter_context(made)

        model = _Later()
        answers = SignalAnswers(model, writer)
        model.teacher = teacher(answers)
        EngineLoop(queue, order, answers).work()


class _Later:
    """A teacher that is made when its answers are."""

    teacher: WatchedSignals

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[Outcome]]:
        return self.teacher.passes(requests)


@dataclass(slots=True)
class LocalSignals(OnePass):
    """`Engines` with one teacher in this process. `texts_a_pass` leaves the rest of the work to the next pass."""

    teacher: WatchedSignals = field(default_factory=WatchedSignals)
    texts_a_pass: int | None = None
    budgets: list[tuple[int | None, float | None]] = field(default_factory=list)

    def lease(self, work: Sequence[Any], *, token_budget: int | None) -> Any:
        return lease_queue(list(items_of(work))[: self.texts_a_pass], token_budget=token_budget)

    def answer(self, queue: Leases[Any], order: FillOrder) -> None:
        run_signal_loop(queue, order, lambda _: self.teacher)


ENGINE = {"transformers": "1"}


class SignalFilling:
    """A cache and what is done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = TeacherCache.open(root, IDENTITY)
        self.ledger = root.parent / "ledger"

    def order(self, *, commit_every_s: float = 1e6) -> FillOrder:
        return FillOrder(
            False,
            self.root,
            0,
            commit_every_s,
            "cc0",
            {"model": "fake"},
            self.ledger,
            encoding="signal-f32",
            engine=ENGINE,
        )

    def failures(self) -> Failures:
        """What a new reader finds that could not be answered."""
        return Failures(LocalStorage(self.root / IDENTITY.digest()), identity=IDENTITY.digest(), engine=ENGINE)

    def plan(self, *sets: SignalSet, refused: RefusedSignals | None = None) -> SignalPlan:
        self.cache.refresh()
        return plan_signals(sets, cache=self.cache.signals, widths=WIDTHS, encoding="signal-f32", refused=refused)

    def fill(
        self,
        *sets: SignalSet,
        engines: Engines[SignalRequest],
        budgets: Budgets = UNLIMITED,
        commit_every_s: float = 1e6,
        refused: RefusedSignals | None = None,
    ) -> FillResult[SignalRequest]:
        return fill_signals(
            self.plan(*sets, refused=refused),
            cache=self.cache,
            engines=engines,
            order=self.order(commit_every_s=commit_every_s),
            budgets=budgets,
            progress=StageProgress("fill", total=None, unit="signals", started=time.monotonic()),
        )

    def records(self, part: SignalSet) -> list[SignalRecord]:
        """What a new reader finds of a set."""
        store = TeacherCache.open(self.root, IDENTITY).signals
        return [record for record in store.get_many(store.keys(part.requests)) if record is not None]


def main(path: Path) -> None:
    task = read_pass(path)

    def teacher(answers: SignalAnswers) -> WatchedSignals:
        def commit() -> None:
            assert len(list(answers.commit(Spent()))) == 2

        return WatchedSignals(at_pass=task.at(commit))

    run_signal_loop(lease_queue(list(items_of(task.work)), token_budget=None), task.order, teacher)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
