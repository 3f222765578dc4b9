"""A teacher with a task head behind a door, in the place that engines of a run's own have in a fill.

As `door_pool` has it of sequences: no engine starts, and answers are committed here. What engines behind the door are
compared with, the door sees to; here it is seen to that the teacher there is the one whose weights are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from cache import Failure, SignalRecord, SignalRequest, SignalWriter, TeacherCache
from configs import DoorError, EngineError, RecordError
from orchestration.cluster.door_fill import DoorFill, while_engines_live
from orchestration.cluster.leases import ItemQueue
from orchestration.fill.answers import SignalAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress, Questions
from orchestration.fill.signals import items_of
from orchestration.inputs.signal_doors import SignalDoor
from orchestration.outputs.console import ProgressSink
from teacher_server.http.signals.client import HttpSignals


class SignalDoorPool:
    """A teacher behind a door. It is asked by this process alone.

    Of all methods:

    Raises:
        ConfigError: it is not the teacher that is wanted, or gives less.
        DoorError: the door stays away, lets nobody in, or answers what cannot be.
    """

    def __init__(self, door: SignalDoor) -> None:
        self._door = door
        self._source: HttpSignals | None = None

    def check(self, requests: Sequence[SignalRequest]) -> None:
        """See that the teacher there is the one here; its engines were compared where they started."""
        with self._asking():
            pass

    def release(self) -> None:
        """Close the connections; nothing under way is waited for."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def fill(
        self,
        work: Iterable[tuple[int, SignalRequest]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """See `orchestration.fill.work.Engines`; what was answered is committed whatever happens here."""
        with self._asking() as source:
            asking = partial(self._fill, order=order, source=source)
            fill = DoorFill(items_of(work), token_budget=token_budget, work=asking, let_go=self.release)
            return fill.until_done(progress=progress, seconds_budget=seconds_budget)

    def _fill(self, queue: ItemQueue[Questions], *, order: FillOrder, source: HttpSignals) -> None:
        """One pass over the queue, as an engine's actor makes it."""
        store = TeacherCache.open(order.cache_root, self._door.teacher.identity).signals
        with ExitStack() as stack:

            def writer() -> SignalWriter:
                made = store.writer(encoding=order.encoding, provenance=order.provenance, licence=order.licence)
                return stack.enter_context(made)

            EngineLoop(queue, order, SignalAnswers(_Living(source), writer)).work()

    @contextmanager
    def _asking(self) -> Iterator[HttpSignals]:
        """The open door, of which errors name it; after one it is opened anew."""
        try:
            if self._source is None:
                self._source = self._door.open()
            yield self._source
        # An answer that cannot be is a record that breaks rules: nothing of the kind may be asked for again.
        except (EngineError, RecordError) as error:
            self.release()
            raise DoorError(f"{self._door.label}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Living:
    """A teacher behind a door, whose engines have to live."""

    source: HttpSignals

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[tuple[int, SignalRecord | Failure]]]:
        """See `PassingSource`.

        Raises:
            EngineError: engines behind the door die.
        """
        return while_engines_live(self.source.passes(requests))
