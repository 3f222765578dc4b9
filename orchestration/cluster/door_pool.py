"""A teacher behind a door, in the place that engines of a run's own have: for a fill, a rollout, a comparison.

No engine starts and nothing of the cluster is taken: what is asked goes over connections of this process, several
batches at once, and answers are committed here as engines of one's own commit theirs. A door that is away is waited for
(`patience_s` of its block); one that stays away, or that answers what it was not asked, ends the run with one line, and
what was answered before is kept.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache import TeacherCache, TeacherRecord
from cache.answers import Request
from cache.identity import Identity
from cache.protocols import Failure, Outcome
from configs import DoorError, EngineError, RecordError
from orchestration.cluster.door_fill import DoorFill, while_engines_live
from orchestration.cluster.engines import TimedAnswers
from orchestration.cluster.leases import ItemQueue
from orchestration.fill.answers import SequenceAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress
from orchestration.fill.ledger import Counts, Meter, read_counts
from orchestration.inputs.doors import Door, DoorSource, Till
from orchestration.outputs.console import ProgressSink
from orchestration.rollouts.turns import Answered, Tagged, Turns
from teacher_server.occupancy import Occupancy
from teacher_server.requests import Asked, StepwiseSource

BLOCK_TOKENS = 16
"""Tokens of a KV block of whatever engine answers; used only for a count."""


class DoorPool:
    """A teacher behind a door. It is asked by this process alone.

    What it is asked is counted in `ledger` where nobody else counts it, and whatever is paid for.

    Of all methods:

    Raises:
        ConfigError: it is not the teacher that is wanted, or gives less.
        BudgetReached: what may be paid for it is paid.
        DoorError: the door stays away, lets nobody in, has another teacher by now, or answers what cannot be.
    """

    def __init__(self, door: Door, identity: Identity, *, vocab: int, ledger: Path | None = None) -> None:
        self._door, self._identity, self._vocab = door, identity, vocab
        self._ledger, self._meter = ledger, None if ledger is None else Meter(ledger)
        self._teacher: DoorSource | None = None
        self._said = ""

    @property
    def block_tokens(self) -> int:
        """See `RolloutPool.block_tokens`."""
        return BLOCK_TOKENS

    @property
    def capacity(self) -> int:
        """See `RolloutPool.capacity`: what is under way at once."""
        return self._door.capacity

    @property
    def shares_processor(self) -> bool:
        """See `RolloutPool.shares_processor`."""
        return False

    def start(self) -> str:
        """Open the connections, unless they are; who answers, and what it gives, in a line for people."""
        with self.asking():
            return self._said

    def sleep(self) -> None:
        """It takes nothing that it could give back."""

    def release(self) -> None:
        """Close the connections; nothing under way is waited for."""
        if self._teacher is not None:
            self._teacher.close()
            self._teacher = None
        if self._meter is not None:
            self._meter.close()

    def engines(self) -> list[DoorEngine]:
        """One, whatever stands behind the door."""
        self.start()
        return [DoorEngine(self)]

    def answer(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """Answer all requests; nothing is cached here."""
        started, outcomes = time.monotonic(), dict[int, TeacherRecord | Failure]()
        with self.asking() as teacher:
            for finished in teacher.work(Asked(request, k) for request in requests):
                outcomes |= dict(finished)
                tokens = sum(len(each.token_ids) for _, each in finished if isinstance(each, TeacherRecord))
                if self._meter is not None:
                    self._meter.add(Counts(evaluation=tokens))
        return TimedAnswers(
            tuple(outcomes[at] for at in range(len(requests))), time.monotonic() - started, self._door.label
        )

    def answer_alone(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """See `forget_prefixes`."""
        raise DoorError(f"{self._door.label}: the speed of a teacher behind a door is not measured")

    def forget_prefixes(self) -> None:
        """Nobody can have an engine behind a door forget, so its speed is not measured."""
        raise DoorError(f"{self._door.label}: the speed of a teacher behind a door is not measured")

    def occupancy(self) -> Occupancy:
        """See `forget_prefixes`."""
        raise DoorError(f"{self._door.label}: the memory of a teacher behind a door is not measured")

    def fill(
        self,
        work: Iterable[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """See `orchestration.fill.work.Engines`; what was answered is committed whatever happens here."""
        with self.asking() as teacher:
            asking = partial(self._fill, order=order, teacher=teacher)
            fill = DoorFill(work, token_budget=token_budget, work=asking, let_go=self.release)
            return fill.until_done(progress=progress, seconds_budget=seconds_budget)

    def _fill(self, queue: ItemQueue[Request], *, order: FillOrder, teacher: DoorSource) -> None:
        """One pass over the queue, as an engine's actor makes it."""
        cache = TeacherCache.open(order.cache_root, self._identity)
        with cache.writer(
            vocab=self._vocab, licence=order.licence, provenance=order.provenance, encoding=order.encoding
        ) as writer:
            EngineLoop(queue, order, SequenceAnswers(_Living(teacher), writer, k=order.k)).work()

    @contextmanager
    def asking(self) -> Iterator[DoorSource]:
        """The open door, of which errors name it; after one it is opened anew."""
        try:
            if self._teacher is None:
                self._teacher, self._said = self._door.open(self._till())
                self._require_same(self._teacher)
            yield self._teacher
        # An answer that cannot be is a record that breaks rules: nothing of the kind may be asked for again.
        except (EngineError, RecordError) as error:
            self.release()
            raise DoorError(f"{self._door.label}: {error}") from error

    def _till(self) -> Till:
        ledger, meter = self._ledger, self._meter
        if ledger is None or meter is None:
            return Till()
        return Till(read_counts(ledger).paid, lambda money: meter.add(Counts(paid=money)))

    def _require_same(self, teacher: DoorSource) -> None:
        there, here = teacher.identity.digest(), self._identity.digest()
        if there != here:
            raise EngineError(f"it is {there[:12]} by now, and this run asks {here[:12]}: run again to begin with it")


@dataclass(frozen=True, slots=True)
class _Living:
    """A teacher behind a door, whose engines have to live."""

    teacher: StepwiseSource

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `StepwiseSource.work`.

        Raises:
            EngineError: engines behind the door die.
        """
        return while_engines_live(self.teacher.work(asked))


class DoorEngine:
    """A door as a rollout sees it."""

    def __init__(self, pool: DoorPool) -> None:
        self._pool = pool
        self._turns: Turns | None = None

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        """See `RolloutEngine.turn`."""
        with self._pool.asking() as teacher:
            if self._turns is None:
                self._turns = Turns(teacher)
            return self._turns.turn(asked, leave=leave)

    def finish(self) -> None:
        """See `RolloutEngine.finish`."""
        if self._turns is not None:
            self._turns.finish()
            self._turns = None
