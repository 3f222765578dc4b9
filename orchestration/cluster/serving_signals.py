"""Teachers with a task head under Ray Serve: plain forward passes that answer many who ask, behind the same door.

What comes while a pass is made waits for the next one, which reads all of it. Serve replaces an engine whose process
ends; an error in a pass is that of whoever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

from cache import SignalRecord, SignalRequest, TeacherCache
from cache.protocols import Failure, SignalSource
from configs import EngineError
from configs.visible_text import first_line
from orchestration.cluster.signal_engines import PlainPass, SignalSpec, plain_apart
from orchestration.inputs.models import load_tokenizer
from orchestration.outputs.redirect import redirect_output
from teacher_server.http.desk import KeepingTerms
from teacher_server.http.signals.desk import Reply, SignalDesk
from teacher_server.http.signals.served import ServedSignals, SignalFacts
from teacher_server.http.signals.texts import SignalTexts

TEXTS_AT_ONCE = 256
"""How many texts may wait for an engine; more wait in the door, where they are counted."""


@dataclass(frozen=True, slots=True)
class ServedHead:
    """A teacher with a head that the door serves: how its engines start, and what is kept of what it says.

    `check` is what each engine is compared on before it is asked anything.
    """

    spec: SignalSpec
    cache_root: Path | str
    terms: KeepingTerms
    facts: SignalFacts
    check: tuple[SignalRequest, ...]


class Passes:
    """A model whose every pass answers all that has come since the last one began. Belongs to one event loop."""

    def __init__(self, model: SignalSource) -> None:
        self._model = model
        self._waiting: list[tuple[Sequence[SignalRequest], asyncio.Future[Reply]]] = []
        self._working: asyncio.Task[None] | None = None

    async def signals(self, requests: Sequence[SignalRequest]) -> Reply:
        """See `AskingSignals.signals`; what a pass raises is raised to all whom it was made for."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((requests, reply))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await reply

    async def _work(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, []
            try:
                found = await asyncio.to_thread(self._pass, [each for requests, _ in asked for each in requests])
            # Whatever it is, who waits for it is told, and the next pass is another one's.
            except Exception as error:  # noqa: BLE001
                for _, reply in asked:
                    if not reply.done():
                        reply.set_exception(error)
                continue
            begin = 0
            for requests, reply in asked:
                if not reply.done():
                    reply.set_result(found[begin : begin + len(requests)])
                begin += len(requests)
        self._working = None

    def _pass(self, requests: Sequence[SignalRequest]) -> list[SignalRecord | Failure]:
        found = dict(self._model.signals(requests))
        return [found[at] for at in range(len(requests))]


class SignalReplica:
    """One model in one process, which answers many at once."""

    def __init__(self, teacher: ServedHead) -> None:
        spec, replica = teacher.spec, serve.get_replica_context().replica_id.unique_id
        redirect_output(spec.log_dir / f"{spec.name}-{replica}.log")
        import torch

        from teacher_server.features import SignalModel

        torch.set_num_threads(spec.settings.cpus)
        model = SignalModel(spec.model_dir, spec.identity, device=spec.accelerator)
        _check(model, teacher, log_file=spec.log_dir / f"{spec.name}-{replica}-plain.log")
        self._passes = Passes(model)

    async def signals(self, requests: Sequence[SignalRequest]) -> Reply:
        """See `AskingSignals.signals`."""
        return await self._passes.signals(requests)


class HandleSignals:
    """The engines of one teacher as a desk sees them: whichever of them has room."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def signals(self, requests: Sequence[SignalRequest]) -> Reply:
        """See `AskingSignals`."""
        try:
            reply: Reply = await self._handle.signals.remote(requests)
        except EngineError:
            raise
        except RayError as error:
            raise EngineError(f"an engine is gone: {first_line(error)}") from error
        return reply


def served_signals(teacher: ServedHead, handle: DeploymentHandle) -> ServedSignals:
    """The teacher as the door has it, over its cache."""
    spec = teacher.spec
    cache = TeacherCache.open(teacher.cache_root, spec.identity, provenance=teacher.terms.provenance)
    texts = SignalTexts(load_tokenizer(spec.model_dir, label=teacher.facts.label))
    return ServedSignals(SignalDesk(cache, HandleSignals(handle), teacher.terms), teacher.facts, texts)


def _check(model: SignalSource, teacher: ServedHead, *, log_file: Path) -> None:
    """Compare it with a plain forward pass over each text alone.

    Raises:
        EngineError: it does not say what its weights say.
    """
    from teacher_server.signal_check import judge_signals

    spec, found = teacher.spec, dict(model.signals(teacher.check))
    expected = plain_apart(PlainPass(spec.model_dir, teacher.check, spec.identity.dtype, log_file))
    answers = [found[at] for at in range(len(teacher.check))]
    judge_signals(answers, expected, model_dir=spec.model_dir, dtype=spec.identity.dtype)
