"""Engines that are actors of Ray, of whatever kind: how they start, work through a fill, and what becomes of a death.

They are started when they are first needed, on places that are taken for all of them at once (`places`), and kept
until they are released. Who knows that they will be needed has them begin before (`begin`), and goes on meanwhile. An
engine that dies ends all of them; the next use starts new ones, fewer where a machine went with the old ones. So does
one that says nothing for too long (`pulse`), whatever it was asked.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import ray
from ray.exceptions import RayError

from configs import ConfigError, DistillError, EngineError
from orchestration.cluster.deaths import lost, memory_ran_out
from orchestration.cluster.leases import AHEAD, DRAWN_AT_ONCE, Feed, LeaseQueue, RemoteLeases
from orchestration.cluster.places import Places, Wanted, begin_to_take, beside_the_driver, take_places, wait_for
from orchestration.cluster.pulse import LOOK_EVERY_S, SILENT_AFTER_S, Life, Watch
from orchestration.fill.engine_loop import FillOrder, FillProgress, Item
from orchestration.fill.ledger import Computes
from orchestration.fill.work import EnginesDiedError, MemoryRanOutError
from orchestration.outputs.console import ProgressSink
from orchestration.plan.memory import MemoryFit

STOP_GRACE_S = 15.0
"""How long a stopped fill may take to commit what it has."""

POLL_S = 0.3

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

Room = Callable[[], AbstractContextManager[None]]
"""Keeps places of the cluster free, for who is about to take some."""


class GpuClock(Protocol):
    """Where the time of engines is counted (`ledger.Ledger`)."""

    def engines_up(self, gpus: float, *, whose: Computes) -> Callable[[], None]:
        """Count engines on `gpus` GPUs from now on; call what is returned when they have ended."""
        ...


class ActorSpec(Protocol):
    """What a pool of any kind has to know of its engines."""

    @property
    def memory(self) -> MemoryFit | None:
        """What was planned for one."""
        ...

    @property
    def log_dir(self) -> Path:
        """Where they write their logs."""
        ...


class ActorPool(ABC):
    """Engines of one kind. Not started before `start` or the first use.

    They take their places within a `room`, which frees some that only wait for work. `joules` gives the energy that all
    machines of the run have taken so far. `started` is told when engines began to start and when they were up, in
    seconds since 1970.
    """

    what = "an inference engine"
    """How people are told of one."""

    silent_after_s = SILENT_AFTER_S
    """How long an engine may say nothing."""

    def __init__(
        self,
        *,
        clock: GpuClock | None = None,
        room: Room = nullcontext,
        joules: Callable[[], float] | None = None,
        started: Callable[[float, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._room = room
        self._joules = joules or (lambda: math.nan)
        self._started = started or (lambda began, ended: None)
        self._began = 0.0
        self._down: Callable[[], None] | None = None
        self._actors: list[ray.actor.ActorHandle] = []
        self._places: Places | None = None
        self._watch: Watch | None = None
        self._beginning = False
        self._were_up = False

    @property
    @abstractmethod
    def spec(self) -> ActorSpec:
        """What the engines are started with."""

    @property
    @abstractmethod
    def counted(self) -> tuple[float, Computes]:
        """The GPUs of one engine (on CPUs its processes), and whose time that is."""

    @property
    @abstractmethod
    def wanted(self) -> Wanted:
        """The places of all engines."""

    @abstractmethod
    def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> ray.actor.ActorHandle:
        """An actor that begins to start now, with these options of Ray; it has `ready`, `fill` and `close`.

        Its process beats as long as it lives.
        """

    @property
    def up(self) -> int:
        """How many engines there are, or are to be."""
        return len(self._actors) or self.wanted.count

    @property
    def is_up(self) -> bool:
        """Whether the engines are there; not as long as they only begin to start."""
        return bool(self._actors) and not self._beginning

    def begin(self) -> None:
        """Have the engines begin to start and wait for nothing, neither for them nor for their places: `start` does.

        Raises:
            EngineError: Ray does not take them on.
            ConfigError: the machines have no room for them.
        """
        if not self._actors:
            with self._room(), self._saying_what_is_lost():
                # Before the actors are there, so that nobody takes what is half made for engines.
                self._beginning = True
                self._begin(begin_to_take(self.wanted))

    def start(self) -> None:
        """Start the engines, unless they are there.

        Raises:
            EngineError: an engine does not come up.
            ConfigError: the machines have no room for them.
        """
        if not self.is_up:
            with self._room():
                self.lighter_if_needed(self._start)

    def _start(self) -> None:
        with self._saying_what_is_lost():
            if self._actors:
                assert self._places is not None
                wait_for(self._places, self.wanted)
            else:
                # Who goes on after a machine is gone goes on with what is left.
                self._begin(take_places(self.wanted, fewer=self._were_up))
        self.ask([actor.ready.remote() for actor in self._actors])
        self._beginning, self._were_up = False, True
        self._started(self._began, time.time())

    @contextmanager
    def _saying_what_is_lost(self) -> Iterator[None]:
        """Whatever goes wrong leaves nothing behind that was begun."""
        try:
            yield
        except RayError as error:
            self.release()
            raise self._lost(error) from error
        except ConfigError:
            self.release()
            raise

    def _begin(self, places: Places) -> None:
        """Have the engines begin to start at these places."""
        wanted, self._places, self._began = self.wanted, places, time.time()
        count = self._places.count
        if count < wanted.count:
            logger.warning("the machines that are left have room for %d of %d %s", count, wanted.count, wanted.what)
        self._watch = Watch(count, after_s=self.silent_after_s)
        self._actors = [
            self.new_actor(index, life=life, options={**_reserved(wanted), **self._places.options(index)})
            for index, life in enumerate(self._watch.lives)
        ]
        if self._clock is not None:
            gpus, whose = self.counted
            self._down = self._clock.engines_up(count * gpus, whose=whose)

    def lighten(self) -> bool:
        """Have engines take less memory from their next start on, if they can; whether they will."""
        return False

    def lighter_if_needed(self, ask: Callable[[], Result]) -> Result:
        """What `ask` makes of the engines; it is called anew for lighter ones as long as they run out of memory.

        Raises:
            EngineError: an engine died of something else, or of memory and cannot be any lighter.
        """
        while True:
            try:
                return ask()
            except EngineError as error:
                if not (memory_ran_out(error) and self.lighten()):
                    raise

    def fill_items(
        self,
        items: Iterable[tuple[int, Item]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """Let all engines work through `items`, which are drawn from as they have room, within the budgets.

        Records that were finished are committed whatever happens here.

        Raises:
            EnginesDiedError: an engine died, or is silent. All of them are released, and the next call starts new ones.
            MemoryRanOutError: so it was, and the new ones take less memory.
        """
        self.start()
        assert self._watch is not None
        watch = self._watch
        queue, feed = self._queue_of(items, token_budget=token_budget)

        def begin(engine: int) -> ray.ObjectRef:
            return self._actors[engine].fill.remote(RemoteLeases(queue, watch.lives[engine]), order)

        loops = [begin(engine) for engine in range(len(self._actors))]
        started, before = time.monotonic(), self._joules()
        failure: DistillError | None = None
        silent, out_of_memory = list[int](), False
        try:
            pending = list(loops)
            while pending:
                done, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_S)
                queue.measured.remote(self._joules() - before)
                so_far: FillProgress = ray.get(queue.progress.remote())
                progress.update(so_far.rows + len(so_far.failures), tokens=so_far.response_tokens)
                ray.get(done)
                at_work = [engine for engine, loop in enumerate(loops) if loop in pending]
                if silent := watch.silent(at_work):
                    failure = self._silence()
                    break
                if seconds_budget is not None and time.monotonic() - started > seconds_budget:
                    break
                if feed.top_up():
                    # Who found nothing to do before there was more has ended.
                    for engine in (engine for engine, loop in enumerate(loops) if loop not in pending):
                        loops[engine] = begin(engine)
                        pending = [*pending, loops[engine]]
        except RayError as error:
            failure, out_of_memory = self._lost(error), memory_ran_out(error)
        finally:
            # Engines that still live commit what they have, whatever ended the loop.
            self._finish(queue, [loop for engine, loop in enumerate(loops) if engine not in silent])
        if failure is not None:
            raise self._ended_by(failure, queue, out_of_memory=out_of_memory)
        total: FillProgress = self.ask([queue.progress.remote()])[0]
        return total

    def _queue_of(
        self, items: Iterable[tuple[int, Item]], *, token_budget: int | None
    ) -> tuple[ray.actor.ActorHandle, Feed[Item]]:
        """A queue that holds the first items, and what feeds it with the others."""
        coming = iter(items)
        first = list(islice(coming, DRAWN_AT_ONCE))
        engines = len(self._actors)
        queue = LeaseQueue.options(**beside_the_driver()).remote(first, token_budget=token_budget, engines=engines)
        feed = Feed(
            lambda more: cast(tuple[int, bool], ray.get(queue.add.remote(more))),
            coming,
            ahead=AHEAD * engines,
            over=len(first) < DRAWN_AT_ONCE,
        )
        return queue, feed

    def _ended_by(self, failure: DistillError, queue: ray.actor.ActorHandle, *, out_of_memory: bool) -> DistillError:
        """What to raise of a fill that failed; the engines are released."""
        handed_out = self._handed_out(queue)
        self.release()
        if not isinstance(failure, EngineError):
            return failure
        kind = MemoryRanOutError if out_of_memory and self.lighten() else EnginesDiedError
        return kind(str(failure), handed_out)

    def release(self) -> None:
        """End the engines and give their memory and devices back."""
        for actor in self._actors:
            # Lets the engine end its own children before its process goes. One that only begins would not hear it
            # before it is up; what it has started by then ends with it.
            if not self._beginning:
                try:
                    ray.get(actor.close.remote(), timeout=STOP_GRACE_S)
                except RayError:
                    logger.info("an engine did not close by itself")
            with suppress(RayError):
                ray.kill(actor)
        self._actors, self._beginning = [], False
        if self._watch is not None:
            with suppress(RayError):
                self._watch.end()
        if self._places is not None:
            self._places.release()
        self._watch = self._places = None
        if self._down is not None:
            self._down()
            self._down = None

    def ask(self, references: list[ray.ObjectRef]) -> list[Any]:
        """Wait for answers of the engines.

        Raises:
            EngineError: an engine died, or is silent. All of them are released, and the next use starts new ones.
        """
        watch, pending = self._watch, references
        try:
            while pending:
                done, pending = ray.wait(pending, num_returns=len(pending), timeout=LOOK_EVERY_S)
                # Of one that failed at once: nobody is waited for any more.
                ray.get(done)
                if pending and watch is not None and watch.silent():
                    self.release()
                    raise self._silence()
            return list(ray.get(references))
        except RayError as error:
            self.release()
            raise self._lost(error) from error

    def _finish(self, queue: ray.actor.ActorHandle, loops: list[ray.ObjectRef]) -> None:
        with suppress(RayError):
            queue.stop.remote()
            ray.wait(loops, num_returns=len(loops), timeout=STOP_GRACE_S)

    def _handed_out(self, queue: ray.actor.ActorHandle) -> list[int]:
        """What engines were asked; nothing where the queue is gone as well."""
        try:
            handed_out: list[int] = ray.get(queue.handed_out.remote())
        except RayError:
            return []
        return handed_out

    def _silence(self) -> EngineError:
        return EngineError(
            f"{self.what} said nothing for {self.silent_after_s:.0f} s, so its process is stopped or hangs: it is "
            f"ended, and what it had not answered is asked anew; its log is in {self.spec.log_dir}"
        )

    def _lost(self, error: RayError) -> DistillError:
        spec = self.spec
        return lost(error, what=self.what, fit=spec.memory, log=spec.log_dir, kind=EngineError)


def _reserved(wanted: Wanted) -> dict[str, Any]:
    """What one engine takes in Ray's books, as options of its actor."""
    return {"num_cpus": wanted.each.get("CPU", 0), "num_gpus": wanted.each.get("GPU", 0)}
