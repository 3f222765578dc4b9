"""A pool of engines of one model shape: started when first needed, then kept until released.

Starting an engine costs a minute, so the next model of the same shape gets the running engines with new weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from cache import TeacherIdentity
from cache.answers import Request
from configs import DistillError, EngineError
from orchestration.cluster.deaths import lost
from orchestration.cluster.engines import EngineActor, EngineSpec, LeaseQueue, TimedAnswers
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.ledger import Computes
from orchestration.outputs.console import ProgressSink
from orchestration.rollouts.turns import Answered, Tagged
from student_train.handoff.broadcast import OfferedTensor, Receiver
from teacher_server.engine_arguments import CPU_ROLLOUT_BLOCK
from teacher_server.environment import engine_environment
from teacher_server.occupancy import Occupancy
from teacher_server.reference import ReferenceRows
from teacher_server.startup_check import CheckAnswers, judge_engine

STOP_GRACE_S = 15.0
"""How long a stopped fill may take to commit what it has."""

POLL_S = 0.3

GPU_BLOCK = 16
"""Tokens of a KV block on a GPU, where vLLM's platform chooses it; used only for a count."""

logger = logging.getLogger(__name__)


Reference = Callable[[Sequence[tuple[int, ...]]], Sequence[ReferenceRows]]
"""What a plain forward pass says of some sequences."""


Room = Callable[[], AbstractContextManager[None]]
"""Keeps places of the cluster free, for who is about to take some."""


class GpuClock(Protocol):
    """Where the time of engines is counted (`ledger.Ledger`)."""

    def engines_up(self, gpus: float, *, whose: Computes) -> Callable[[], None]:
        """Count engines on `gpus` GPUs from now on; call what is returned when they have ended."""
        ...


class EnginePool:
    """Engines of one shape. Not started before `start` or the first use.

    They take their places within a `room`, which frees some that only wait for work. `joules` gives the energy that all
    machines of the run have taken so far.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        clock: GpuClock | None = None,
        room: Room = nullcontext,
        joules: Callable[[], float] | None = None,
    ) -> None:
        self._spec = spec
        self._clock = clock
        self._room = room
        self._joules = joules or (lambda: math.nan)
        self._down: Callable[[], None] | None = None
        self._actors: list[ray.actor.ActorHandle] = []
        self._asleep = False

    def start(self) -> None:
        """Start the engines, or wake them if they sleep. Does nothing to those at work.

        Raises:
            EngineError: an engine does not come up.
        """
        if self._actors:
            self.wake()
            return
        with self._room():
            self._start()

    def _start(self) -> None:
        settings = self._spec.settings
        gpus = settings.tensor_parallel * self._spec.gpu_share if self._spec.accelerator == "gpu" else 0
        environment = engine_environment(settings, self._spec.accelerator)
        # Engines of a rollout live beside a worker group that holds all CPUs in Ray's books, and take turns with it.
        cpus = 0 if self._spec.purpose != "fill" else 1 if gpus else settings.cpus
        self._actors = [
            EngineActor.options(  # type: ignore[attr-defined]
                num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": environment}
            ).remote(self._spec, index=index)
            for index in range(settings.count)
        ]
        if self._clock is not None:
            share = settings.count * settings.tensor_parallel * self._spec.gpu_share
            self._down = self._clock.engines_up(share, whose="teacher" if self._spec.teaches else "student")
        self.ask([actor.ready.remote() for actor in self._actors])

    def sleep(self) -> None:
        """Let engines that share their GPUs give the memory back until they are used again.

        One that cannot is ended with its whole pool, which frees the memory too.
        """
        if not self._actors or self._asleep or self._spec.purpose != "shared rollout":
            return
        try:
            self.ask([actor.sleep.remote() for actor in self._actors])
            self._asleep = True
        except EngineError as error:
            logger.warning("engines that could not fall asleep were ended: %s", error)

    def wake(self) -> None:
        """Have engines that sleep take their memory again.

        Raises:
            EngineError: there is too little of it, or an engine died. All of them are released.
        """
        if self._asleep:
            self.ask([actor.wake.remote() for actor in self._actors])
            self._asleep = False

    def check(
        self, prompts: Sequence[tuple[int, ...]], *, stop_ids: tuple[int, ...], bos_id: int | None, reference: Reference
    ) -> None:
        """Compare every engine with a plain transformers forward pass, which `reference` makes once for all of them.

        Raises:
            EngineError: one of them does not say what its weights say.
        """
        self.start()
        asked = [actor.check.remote(prompts, stop_ids=stop_ids, bos_id=bos_id) for actor in self._actors]
        answers: list[CheckAnswers] = self.ask(asked)
        # Engines of one kind write the same almost always.
        sequences = list(dict.fromkeys(sequence for each in answers for sequence in each.sequences))
        rows = dict(zip(sequences, reference(sequences), strict=True))
        for each in answers:
            judge_engine(each, [rows[sequence] for sequence in each.sequences], model_dir=self._spec.model_dir)

    def load(self, model_dir: Path, identity: TeacherIdentity) -> None:
        """Make the engines serve another model of the same shape, starting them if need be."""
        if not self._actors:
            self._spec = replace(self._spec, model_dir=model_dir, identity=identity)
            self.start()
        elif identity != self._spec.identity:
            self.ask([actor.load.remote(model_dir, identity) for actor in self._actors])
            self._spec = replace(self._spec, model_dir=model_dir, identity=identity)

    @property
    def processes(self) -> int:
        """Processes of all engines together; each holds weights."""
        return self._spec.settings.count * self._spec.settings.tensor_parallel

    def receive(self, meeting: Path, tensors: tuple[OfferedTensor, ...], identity: TeacherIdentity) -> None:
        """Have the engines take over weights that a worker group sends to all of them at once; see `BroadcastSync`.

        Engines that are started again begin with the weights of the pool's own model.
        """
        self.start()
        width, size = self._spec.settings.tensor_parallel, 1 + self.processes
        self.ask(
            [
                actor.receive.remote(Receiver(meeting, 1 + index * width, size, tensors), identity)
                for index, actor in enumerate(self._actors)
            ]
        )

    @property
    def block_tokens(self) -> int:
        """See `RolloutPool.block_tokens`."""
        return CPU_ROLLOUT_BLOCK if self._spec.accelerator == "cpu" else GPU_BLOCK

    @property
    def capacity(self) -> int:
        """See `RolloutPool.capacity`."""
        return self._spec.settings.count * self._spec.settings.max_sequences

    @property
    def shares_processor(self) -> bool:
        """See `RolloutPool.shares_processor`."""
        return self._spec.accelerator == "cpu"

    def engines(self) -> list[PooledEngine]:
        """The engines for a rollout, started if need be."""
        self.start()
        return [PooledEngine(self, actor=actor) for actor in self._actors]

    def answer(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """Answer all requests with the first engine; nothing is cached."""
        self.start()
        answers: TimedAnswers = self.ask([self._actors[0].answer.remote(requests, k=k)])[0]
        return answers

    def forget_prefixes(self) -> None:
        """See `VllmEngine.forget_prefixes`: of the first engine, which is the one that answers."""
        self.start()
        self.ask([self._actors[0].forget_prefixes.remote()])

    def occupancy(self) -> Occupancy:
        """Memory that the first engine takes."""
        self.start()
        occupied: Occupancy = self.ask([self._actors[0].occupancy.remote()])[0]
        return occupied

    def fill(
        self,
        work: Sequence[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """Let all engines work through `work`, within the budgets.

        Records that were finished are committed whatever happens here.

        Raises:
            EngineError: an engine died. All of them are released, and the next call starts new ones.
        """
        self.start()
        queue = LeaseQueue.remote(  # type: ignore[attr-defined]
            list(work), token_budget=token_budget, engines=len(self._actors)
        )
        loops = [actor.fill.remote(queue, order) for actor in self._actors]
        started, before = time.monotonic(), self._joules()
        failure: DistillError | None = None
        try:
            pending = loops
            while pending:
                done, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_S)
                queue.measured.remote(self._joules() - before)
                so_far: FillProgress = ray.get(queue.progress.remote())
                progress.update(so_far.rows + len(so_far.failures), tokens=so_far.response_tokens)
                ray.get(done)
                if seconds_budget is not None and time.monotonic() - started > seconds_budget:
                    break
        except RayError as error:
            failure = self._lost(error)
        finally:
            # Engines that still live commit what they have, whatever ended the loop.
            self._finish(queue, loops)
        if failure is not None:
            self.release()
            raise failure
        total: FillProgress = self.ask([queue.progress.remote()])[0]
        return total

    def release(self) -> None:
        """End the engines and give their memory and devices back."""
        for actor in self._actors:
            # Lets the engine end its own children before its process goes.
            try:
                ray.get(actor.close.remote(), timeout=STOP_GRACE_S)
            except RayError:
                logger.info("an engine did not close by itself")
            with suppress(RayError):
                ray.kill(actor)
        self._actors, self._asleep = [], False
        if self._down is not None:
            self._down()
            self._down = None

    def _finish(self, queue: ray.actor.ActorHandle, loops: list[ray.ObjectRef]) -> None:
        with suppress(RayError):
            queue.stop.remote()
            ray.wait(loops, num_returns=len(loops), timeout=STOP_GRACE_S)

    def ask(self, references: list[ray.ObjectRef]) -> list[Any]:
        """Wait for answers of the engines.

        Raises:
            EngineError: an engine died. All of them are released, and the next use starts new ones.
        """
        try:
            return list(ray.get(references))
        except RayError as error:
            self.release()
            raise self._lost(error) from error

    def _lost(self, error: RayError) -> DistillError:
        spec = self._spec
        return lost(error, what="an inference engine", fit=spec.memory, log=spec.log_dir, kind=EngineError)


class PooledEngine:
    """An engine of a pool as a rollout sees it."""

    def __init__(self, pool: EnginePool, *, actor: ray.actor.ActorHandle) -> None:
        self._pool = pool
        self._actor = actor

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        """See `RolloutEngine.turn`."""
        answered: list[Answered] = self._pool.ask([self._actor.turn.remote(asked, leave=leave)])[0]
        return answered

    def finish(self) -> None:
        """See `RolloutEngine.finish`. Of an engine that died nothing is under way."""
        try:
            ray.get(self._actor.finish.remote())
        except RayError:
            logger.info("an engine did not take note that its rollout is over")
