"""Models with a task head as Ray actors, which say what they see in texts, and pools of them.

They take the place that inference engines have in a fill with sequences: `runtime.teacher_engine` says how many there
are (`count`) and how many CPUs each takes (`cpus`); where the accelerator is a GPU each has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from cache import Failure, SignalRecord, SignalRequest, SignalWriter, TeacherCache, TeacherIdentity
from configs import EngineError
from configs.models import Device
from configs.schema import EngineSettings
from orchestration.cluster.actor_pool import ActorPool, GpuClock, Room
from orchestration.cluster.places import Wanted
from orchestration.cluster.pulse import Life
from orchestration.cluster.task import Apart, run_apart
from orchestration.fill.answers import SignalAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress, Leases, Questions
from orchestration.fill.ledger import Computes, Counts, Meter
from orchestration.fill.signals import items_of
from orchestration.outputs.console import ProgressSink
from orchestration.outputs.redirect import redirect_output
from orchestration.plan.memory import MemoryFit

if TYPE_CHECKING:
    from teacher_server.signal_check import Values


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """Everything that an engine needs to start, on whatever node.

    `ledger` is where answers are counted that no fill asks for; None where nobody does. `memory` is what was planned
    for it.
    """

    model_dir: Path
    identity: TeacherIdentity
    settings: EngineSettings
    accelerator: Device
    log_dir: Path
    name: str = "signals"
    ledger: Path | None = None
    memory: MemoryFit | None = None


@dataclass(frozen=True, slots=True)
class PlainPass:
    """Texts that a model reads one by one, in a process of its own."""

    model_dir: Path
    requests: tuple[SignalRequest, ...]
    dtype: str
    log_file: Path


@ray.remote(max_restarts=0)
class SignalActor:
    """One model in one process."""

    def __init__(self, spec: SignalSpec, *, index: int, life: Life) -> None:
        life.beat()
        redirect_output(spec.log_dir / f"{spec.name}-{index}.log")
        import torch

        from teacher_server.features import SignalModel

        torch.set_num_threads(spec.settings.cpus)
        self._spec = spec
        self._model = SignalModel(spec.model_dir, spec.identity, device=spec.accelerator)

    def ready(self) -> None:
        """Return when the model is loaded."""

    def answer(self, requests: Sequence[SignalRequest]) -> list[SignalRecord | Failure]:
        """Answers in the order of the requests; nothing is cached."""
        found = dict(self._model.signals(requests))
        answers = [found[at] for at in range(len(requests))]
        if self._spec.ledger is not None:
            read = {
                (r.token_ids, r.split) for r, a in zip(requests, answers, strict=True) if isinstance(a, SignalRecord)
            }
            meter = Meter(self._spec.ledger)
            meter.add(Counts(evaluation=sum(len(token_ids) for token_ids, _ in read)))
            meter.close()
        return answers

    def fill(self, leases: Leases[Questions], order: FillOrder) -> None:
        """Work on a queue until it is empty or stopped, committing segments on the way."""
        store = TeacherCache.open(order.cache_root, self._spec.identity).signals
        with ExitStack() as stack:

            def writer() -> SignalWriter:
                made = store.writer(encoding=order.encoding, provenance=order.provenance, licence=order.licence)
                return stack.enter_context(made)

            EngineLoop(leases, order, SignalAnswers(self._model, writer)).work()

    def close(self) -> None:
        """Nothing to end: the model has no processes of its own."""


class SignalPool(ActorPool):
    """Engines of one teacher with a head. Not started before the first use."""

    what = "a teacher's engine"

    def __init__(
        self,
        spec: SignalSpec,
        *,
        clock: GpuClock | None = None,
        room: Room = nullcontext,
        joules: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(clock=clock, room=room, joules=joules)
        self._spec = spec

    @property
    def spec(self) -> SignalSpec:
        """See `ActorPool`."""
        return self._spec

    @property
    def counted(self) -> tuple[float, Computes]:
        """See `ActorPool`."""
        return 1.0, "teacher"

    @property
    def wanted(self) -> Wanted:
        """See `ActorPool`."""
        spec, settings = self._spec, self._spec.settings
        each = {"GPU": 1, "CPU": 1} if spec.accelerator == "gpu" else {"CPU": settings.cpus}
        return Wanted("engines", settings.count, each, "SPREAD", "lower runtime.teacher_engine.count")

    def new_actor(self, index: int, *, life: Life, options: dict[str, Any]) -> ray.actor.ActorHandle:
        """See `ActorPool`."""
        spec, cpus = self._spec, self._spec.settings.cpus
        # Threads that spin at every barrier starve each other when anything else runs on the machine.
        environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cpus), "GOMP_SPINCOUNT": "1000"}
        started = SignalActor.options(runtime_env={"env_vars": environment}, **options)  # type: ignore[attr-defined]
        return started.remote(spec, index=index, life=life)

    def check(
        self, requests: Sequence[SignalRequest], *, plain: Callable[[PlainPass], list[Values]] | None = None
    ) -> None:
        """Compare every engine with a plain transformers forward pass over each text alone, made once for all of them.

        Raises:
            EngineError: one of them does not say what its weights say.
        """
        from teacher_server.signal_check import judge_signals

        self.start()
        spec, asked = self._spec, tuple(requests)
        answers = self.ask([actor.answer.remote(asked) for actor in self._actors])
        job = PlainPass(spec.model_dir, asked, spec.identity.dtype, spec.log_dir / f"{spec.name}-plain.log")
        expected = (plain or plain_apart)(job)
        for each in answers:
            judge_signals(each, expected, model_dir=spec.model_dir, dtype=spec.identity.dtype)

    def fill(
        self,
        work: Iterable[tuple[int, SignalRequest]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """See `ActorPool.fill_items`; neighbours about one text are an item."""
        return self.fill_items(
            items_of(work), order, progress=progress, token_budget=token_budget, seconds_budget=seconds_budget
        )


def plain_apart(job: PlainPass) -> list[Values]:
    """The plain pass in a process of its own, on the CPU.

    Raises:
        EngineError: the process died.
        ModelError: the model does not load.
    """
    what = "the forward pass that the teacher is compared with"
    return run_apart(_plain, job, apart=Apart(what, EngineError, "cpu", None, job.log_file))


def _plain(job: PlainPass) -> list[Values]:
    redirect_output(job.log_file)
    from teacher_server.signal_check import plain_signals

    return plain_signals(job.model_dir, job.requests, dtype=job.dtype)
