"""The guard of a run (`content.guard`) with engines of its own, which are there while it reads and not a moment longer.

It reads the data before any engine of a teacher begins, and answers when teachers have written them: then the teacher's
engines are ended first, for a machine may have no room for both. What it has said is kept, so mostly none is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from cache import GenerateRequest, TeacherRecord
from cache.protocols import Failure
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.planned_engine import engine_spec
from orchestration.inputs.guard_questions import ROOM, K
from orchestration.inputs.model_guard import GuardModel, ModelGuard, guard_root, open_guard
from orchestration.pipeline.run import AnyRun, Journal
from orchestration.pipeline.workers import Workers

SEED = 3000
"""Of its first engine; no engine of a run has the seed of another."""


@contextmanager
def opened_guard(run: AnyRun, journal: Journal, workers: Workers) -> Iterator[ModelGuard | None]:
    """The guard of a run, if it has one; its engines end with the context at the latest.

    Raises:
        ModelError: it cannot be found or loaded.
        ConfigError: it cannot be asked as the configuration says.
    """
    model = open_guard(run.config)
    if model is None:
        yield None
        return
    journal.console.say(f"{model.said}.")
    engines = GuardEngines(model, run, journal, workers)
    try:
        yield ModelGuard(model, model.verdicts(guard_root(run.config)), engines.answer, rest=engines.release)
    finally:
        engines.release()


class GuardEngines:
    """Engines of a guard: started when it is asked, ended when it rests."""

    def __init__(self, model: GuardModel, run: AnyRun, journal: Journal, workers: Workers) -> None:
        self._model, self._run, self._journal, self._workers = model, run, journal, workers
        self._pool: EnginePool | None = None

    def answer(self, requests: Sequence[GenerateRequest]) -> Sequence[TeacherRecord | Failure]:
        """See `orchestration.inputs.model_guard.Ask`.

        Raises:
            EngineError: an engine does not come up, or kept dying.
        """
        with self._journal.console.stage("guard", place="cluster") as stage:
            if self._pool is None:
                self._workers.need_cluster()
                self._pool = self._new_pool()
            outcomes = self._pool.answer(requests, k=K).outcomes
            stage.summary = f"{len(requests):,} texts judged by {self._model.files.label}"
        return outcomes

    def release(self) -> None:
        """End the engines, if any are up."""
        if self._pool is not None:
            self._pool.release()
            self._pool = None

    def _new_pool(self) -> EnginePool:
        model, run = self._model, self._run
        engine, longest = run.config.runtime.teacher_engine, model.config.max_tokens + ROOM
        settings = engine.model_copy(
            update={"max_model_len": longest, "max_batched_tokens": max(longest, engine.max_batched_tokens)}
        )
        spec = engine_spec(
            model.files, model.identity, settings=settings, k=K, accelerator=run.device, log_dir=run.logs
        )
        return self._workers.new_pool(replace(spec, name="guard", seed=SEED))
