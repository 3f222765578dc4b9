"""A pool of engines of one model shape: started when first needed, then kept until released.

Starting an engine costs a minute, so the next model of the same shape gets the running engines with new weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from cache import TeacherIdentity
from cache.answers import Request
from configs import EngineError
from orchestration.cluster.actor_pool import ActorPool, GpuClock, Room
from orchestration.cluster.engines import EngineActor, EngineSpec, TimedAnswers
from orchestration.cluster.places import Wanted
from orchestration.cluster.pulse import Life
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.ledger import Computes
from orchestration.outputs.console import ProgressSink
from orchestration.rollouts.turns import Answered, Tagged
from student_train.handoff.broadcast import OfferedTensor, Receiver
from teacher_server.engine_arguments import CPU_ROLLOUT_BLOCK, with_half_a_batch
from teacher_server.environment import engine_environment
from teacher_server.occupancy import Occupancy
from teacher_server.reference import ReferenceRows
from teacher_server.startup_check import CheckAnswers, judge_engine

GPU_BLOCK = 16
"""Tokens of a KV block on a GPU, where vLLM's platform chooses it; used only for a count."""

MOST_HALVINGS = 3
"""Of the batches of one pool: an eighth of what was planned is no longer a matter of batches."""

logger = logging.getLogger(__name__)


Reference = Callable[[Sequence[tuple[int, ...]]], Sequence[ReferenceRows]]
"""What a plain forward pass says of some sequences."""


class AnsweringPool(Protocol):
    """Whoever serves a model that is examined (`EnginePool`, `door_pool.DoorPool`)."""

    def answer(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """See `EnginePool.answer`."""
        ...

    def answer_alone(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """See `EnginePool.answer_alone`."""
        ...

    def forget_prefixes(self) -> None:
        """See `EnginePool.forget_prefixes`."""
        ...

    def occupancy(self) -> Occupancy:
        """See `EnginePool.occupancy`."""
        ...


class EnginePool(ActorPool):
    """Engines of one shape, which sleep and wake, change their weights, and write."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        clock: GpuClock | None = None,
        room: Room = nullcontext,
        joules: Callable[[], float] | None = None,
        started: Callable[[float, float], None] | None = None,
    ) -> None:
        super().__init__(clock=clock, room=room, joules=joules, started=started)
        self._spec = spec
        self._asleep = False
        self._halvings = 0

    @property
    def spec(self) -> EngineSpec:
        """See `ActorPool`."""
        return self._spec

    @property
    def counted(self) -> tuple[float, Computes]:
        """See `ActorPool`."""
        return self._spec.settings.ranks * self._spec.gpu_share, "teacher" if self._spec.teaches else "student"

    @property
    def wanted(self) -> Wanted:
        """See `ActorPool`."""
        spec, settings = self._spec, self._spec.settings
        gpus = settings.ranks * spec.gpu_share if spec.accelerator == "gpu" else 0
        # Engines of a rollout live beside a worker group that holds all CPUs in Ray's books, and take turns with it.
        cpus = 0 if spec.purpose != "fill" else settings.ranks * (1 if gpus else settings.cpus)
        key = f"{spec.key}.count" if spec.key else "their number"
        return Wanted("engines", settings.count, {"GPU": gpus, "CPU": cpus}, "SPREAD", f"lower {key}")

    def start(self) -> None:
        """Start the engines, or wake them if they sleep. Does nothing to those at work.

        Raises:
            EngineError: an engine does not come up.
        """
        if self.is_up:
            self.wake()
        else:
            super().start()

    def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> ray.actor.ActorHandle:
        """See `ActorPool`."""
        environment = engine_environment(self._spec.settings, self._spec.accelerator)
        started = EngineActor.options(runtime_env={"env_vars": environment}, **options)  # type: ignore[attr-defined]
        return started.remote(self._spec, index=index, life=life)

    def lighten(self) -> bool:
        """Halve the tokens and sequences of a step, a few times at most. No number that is stored depends on them."""
        before, spec = self._spec.settings, self._spec
        after = with_half_a_batch(before, accelerator=spec.accelerator)
        if self._halvings == MOST_HALVINGS or after == before:
            return False
        self._halvings += 1
        self._spec = replace(spec, settings=after)
        logger.warning(
            "memory ran out with max_batched_tokens=%d and max_sequences=%d: engines are started again with less; to "
            "begin with it, write max_batched_tokens: %d and max_sequences: %d%s",
            before.max_batched_tokens,
            before.max_sequences,
            after.max_batched_tokens,
            after.max_sequences,
            f" into {spec.key}" if spec.key else "",
        )
        return True

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

        def answered() -> list[CheckAnswers]:
            self.start()
            return self.ask([actor.check.remote(prompts, stop_ids=stop_ids, bos_id=bos_id) for actor in self._actors])

        answers = self.lighter_if_needed(answered)
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
        return self.up * self._spec.settings.ranks

    def receive(self, meeting: Path, tensors: tuple[OfferedTensor, ...], identity: TeacherIdentity) -> None:
        """Have the engines take over weights that a worker group sends to all of them at once; see `BroadcastSync`.

        Engines that are started again begin with the weights of the pool's own model.
        """
        self.start()
        width, size = self._spec.settings.ranks, 1 + self.processes
        self.ask(
            [
                actor.receive.remote(Receiver(meeting, 1 + index * width, size, tensors), identity)
                for index, actor in enumerate(self._actors)
            ]
        )

    @property
    def block_tokens(self) -> int:
        """See `RolloutPool.block_tokens`."""
        if self._spec.accelerator == "gpu":
            return GPU_BLOCK
        # An engine of one process keeps sequences open (`teacher_server.sessions`), and so every token of them.
        return 1 if self._spec.settings.ranks == 1 else CPU_ROLLOUT_BLOCK

    @property
    def capacity(self) -> int:
        """See `RolloutPool.capacity`."""
        return self.up * self._spec.settings.max_sequences

    @property
    def shares_processor(self) -> bool:
        """See `RolloutPool.shares_processor`."""
        return self._spec.accelerator == "cpu"

    def engines(self) -> list[PooledEngine]:
        """The engines for a rollout, started if need be."""
        self.start()
        return [PooledEngine(self, actor=actor) for actor in self._actors]

    def answer(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """Answer all requests, which are dealt to the engines in turn; nothing is cached.

        It took as long as the slowest of them.
        """
        return together(self.lighter_if_needed(lambda: self._answers(requests, k=k, engines=None)))

    def answer_alone(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """Answer all requests with the first engine, which is the one that is measured; nothing is cached."""
        return together(self.lighter_if_needed(lambda: self._answers(requests, k=k, engines=1)))

    def _answers(self, requests: Sequence[Request], *, k: int, engines: int | None) -> list[TimedAnswers]:
        """What each of the first `engines` says to its share; who has none is not asked."""
        self.start()
        asked = self._actors[:engines]
        shares = [requests[at :: len(asked)] for at in range(max(1, min(len(asked), len(requests))))]
        return self.ask([actor.answer.remote(share, k=k) for actor, share in zip(asked, shares, strict=False)])

    def forget_prefixes(self) -> None:
        """See `VllmEngine.forget_prefixes`."""
        self.start()
        self.ask([actor.forget_prefixes.remote() for actor in self._actors])

    def occupancy(self) -> Occupancy:
        """Memory that the first engine takes, which is the one that is measured."""
        self.start()
        occupied: Occupancy = self.ask([self._actors[0].occupancy.remote()])[0]
        return occupied

    def fill(
        self,
        work: Iterable[tuple[int, Request]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """See `ActorPool.fill_items`; every request is an item."""
        return self.fill_items(work, order, progress=progress, token_budget=token_budget, seconds_budget=seconds_budget)

    def release(self) -> None:
        """See `ActorPool`."""
        super().release()
        self._asleep = False


def together(shares: Sequence[TimedAnswers]) -> TimedAnswers:
    """Answers to requests that were dealt in turn, in the order of the requests."""
    count = sum(len(share.outcomes) for share in shares)
    first = shares[0].measured_on
    return TimedAnswers(
        tuple(shares[at % len(shares)].outcomes[at // len(shares)] for at in range(count)),
        max(share.seconds for share in shares),
        first if len(shares) == 1 else f"{len(shares)} engines, each {first}",
    )


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
