"""Inference engines as Ray actors.

They draw their work from a queue (`leases`), and write what they finish into segments of their own (`engine_loop`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.answers import Request
from cache.protocols import Failure
from configs.interfaces import collective_environment
from configs.models import Device
from configs.schema import EngineSettings
from orchestration.cluster.pulse import Life
from orchestration.fill.answers import SequenceAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, Leases
from orchestration.fill.ledger import Counts, Meter
from orchestration.outputs.redirect import redirect_output
from orchestration.plan.machine import engine_in_words
from orchestration.plan.memory import MemoryFit
from orchestration.rollouts.turns import Answered, Tagged, Turns
from teacher_server.engine_arguments import Purpose, require_declared
from teacher_server.occupancy import Occupancy
from teacher_server.startup_check import CheckAnswers, ask_engine

if TYPE_CHECKING:
    # At run time it would bring the whole of training into every engine's process.
    from student_train.handoff.broadcast import Receiver


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything that an engine needs to start, on whatever node.

    `seed` is the first of those that the engines of a pool get, and `name` begins the names of their log files; pools
    that run side by side have different ones. `gpu_share` is the part of each of its GPUs that an engine takes in Ray's
    books: less than all where its purpose is "shared rollout". `ledger` is where the answers of a teacher are counted
    that no fill asks for; None where they are counted elsewhere, or not at all. `memory` is what was planned for it.
    `teaches` says that its time is a teacher's, `grammars` that its answers will be held to some. `key` is the block of
    the configuration that `settings` are from, if any.
    """

    model_dir: Path
    identity: TeacherIdentity
    vocab: int
    dtype: str
    quantization: str | None
    settings: EngineSettings
    max_logprobs: int
    accelerator: Device
    log_dir: Path
    purpose: Purpose = "fill"
    seed: int = 0
    name: str = "engine"
    gpu_share: float = 1.0
    ledger: Path | None = None
    memory: MemoryFit | None = None
    teaches: bool = False
    grammars: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class TimedAnswers:
    """Outcomes in the order of their requests, how long they took together, and on what machine."""

    outcomes: tuple[TeacherRecord | Failure, ...]
    seconds: float
    measured_on: str


@ray.remote(max_restarts=0)
class EngineActor:
    """One engine in one process."""

    def __init__(self, spec: EngineSpec, *, index: int, life: Life) -> None:
        life.beat()
        redirect_output(spec.log_dir / f"{spec.name}-{index}.log")
        if spec.purpose != "fill":
            # A worker group may send its weights from another node, over the cluster's own interface.
            ours = collective_environment(ray.util.get_node_ip_address())
            os.environ["NCCL_SOCKET_IFNAME"] = ours["NCCL_SOCKET_IFNAME"]
        from teacher_server.vllm_engine import VllmEngine

        self._spec = spec
        self._meter = None if spec.ledger is None else Meter(spec.ledger)
        self._turns: Turns | None = None
        require_declared(spec.identity, dtype=spec.dtype, quantization=spec.quantization)
        # Engines without a seed all start from the same one and draw the same noise.
        self._engine = VllmEngine(
            spec.model_dir,
            identity=spec.identity,
            vocab=spec.vocab,
            settings=spec.settings,
            seed=spec.seed + index + 1,
            max_logprobs=spec.max_logprobs,
            purpose=spec.purpose,
            grammars=spec.grammars,
        )

    def ready(self) -> None:
        """Return when the engine is up."""

    def check(
        self, prompts: Sequence[tuple[int, ...]], *, stop_ids: tuple[int, ...], bos_id: int | None
    ) -> CheckAnswers:
        """What the engine says to the prompts of its check.

        Raises:
            EngineError: it refuses one.
        """
        answers = ask_engine(self._engine, prompts=prompts, stop_ids=stop_ids, expected_bos=bos_id)
        for record in (*answers.written, *answers.scored):
            self._count(record)
        return answers

    def load(self, model_dir: Path, identity: TeacherIdentity) -> None:
        """Replace the weights by those of another model of the same shape."""
        self._engine.load(model_dir, identity=identity)

    def receive(self, source: Receiver, identity: TeacherIdentity) -> None:
        """Replace the weights by those that a worker group sends."""
        self._engine.receive(source, shapes={each.name: each.shape for each in source.tensors}, identity=identity)

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        """See `RolloutEngine.turn`."""
        if self._turns is None:
            self._turns = Turns(self._engine)
        return self._turns.turn(asked, leave=leave)

    def finish(self) -> None:
        """See `RolloutEngine.finish`."""
        if self._turns is not None:
            self._turns.finish()

    def answer(self, requests: Sequence[Request], *, k: int) -> TimedAnswers:
        """Answer all requests; nothing is cached."""
        started = time.monotonic()
        outcomes = {}
        for position, outcome in self._outcomes(requests, k=k):
            outcomes[position] = outcome
            self._count(outcome)
        seconds, spec = time.monotonic() - started, self._spec
        measured_on = engine_in_words(
            spec.settings, accelerator=spec.accelerator, dtype=spec.dtype, quantization=spec.quantization
        )
        return TimedAnswers(tuple(outcomes[i] for i in range(len(requests))), seconds, measured_on)

    def fill(self, leases: Leases[Request], order: FillOrder) -> None:
        """Work on a queue until it is empty or stopped, committing segments on the way."""
        cache = TeacherCache.open(order.cache_root, self._spec.identity)
        with cache.writer(
            vocab=self._spec.vocab, licence=order.licence, provenance=order.provenance, encoding=order.encoding
        ) as writer:
            answers = SequenceAnswers(self._engine, writer, k=order.k)
            EngineLoop(leases, order, answers).work()

    def forget_prefixes(self) -> None:
        """See `VllmEngine.forget_prefixes`."""
        self._engine.forget_prefixes()

    def occupancy(self) -> Occupancy:
        """See `VllmEngine.occupancy`."""
        return self._engine.occupancy()

    def sleep(self) -> None:
        """See `VllmEngine.sleep`."""
        self._engine.sleep()

    def wake(self) -> None:
        """See `VllmEngine.wake`."""
        self._engine.wake()

    def close(self) -> None:
        """End every process of the engine."""
        self._engine.close()

    def _count(self, outcome: TeacherRecord | Failure) -> None:
        if self._meter is not None and isinstance(outcome, TeacherRecord):
            self._meter.add(Counts(evaluation=len(outcome.token_ids)))

    def _outcomes(self, requests: Sequence[Request], *, k: int) -> Iterator[tuple[int, TeacherRecord | Failure]]:
        generate = [(i, r) for i, r in enumerate(requests) if isinstance(r, GenerateRequest)]
        score = [(i, r) for i, r in enumerate(requests) if isinstance(r, ScoreRequest)]
        for position, outcome in self._engine.generate([r for _, r in generate], k=k):
            yield generate[position][0], outcome
        if score:
            for position, outcome in self._engine.score([r for _, r in score], k=k):
                yield score[position][0], outcome
