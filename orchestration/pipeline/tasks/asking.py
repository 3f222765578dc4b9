"""Asking a teacher with a task head about all examples of an experiment, as a stage of the run; pinning the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache import SignalRequest
from configs.places import absolute_root
from orchestration.fill.budgets import budgets_left
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import FillResult
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.run import Journal
from orchestration.pipeline.stage import Line, Stage
from orchestration.pipeline.tasks.head_teacher import CheckedEngines, HeadTeacher
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.workers import Workers
from orchestration.plan.signal_requests import SignalPlan


class ReleasedEngines(CheckedEngines, Protocol):
    """Engines that can be let go (`signal_engines.SignalPool`)."""

    def release(self) -> None:
        """End them, and give their memory and devices back."""
        ...


@dataclass(frozen=True, slots=True)
class AskedHead:
    """A teacher with a head, what it is to be asked, and the engines that would be."""

    head: HeadTeacher
    plan: SignalPlan
    engines: ReleasedEngines


@dataclass(slots=True)
class SignalFill(Stage[SignalPlan, FillResult[SignalRequest], None]):
    """Asks for what the cache lacks; keeps it as it comes."""

    asked: AskedHead
    settings: TaskRun
    journal: Journal
    workers: Workers

    def prepare(self) -> SignalPlan | None:
        """The plan, unless every signal is in the cache."""
        if not self.asked.plan.asks_teacher:
            return None
        self.workers.need_cluster()
        return self.asked.plan

    def line(self) -> Line:
        """See `Stage`."""
        return Line("fill", total=self.asked.plan.misses, unit="signals", always_shown=True)

    def run(self, work: SignalPlan, progress: StageProgress) -> FillResult[SignalRequest]:
        """Fill within the budgets of the experiment, once the engines agree with a plain forward pass.

        Raises:
            BudgetReached: a budget ended the fill before everything was there.
            EngineError: an engine does not say what its weights say, or kept dying.
        """
        config, ledger, head = self.settings.config, self.journal.ledger, self.asked.head
        progress.update(0, note="loading the teacher, comparing it with a plain forward pass")
        order = FillOrder(
            scoring=True,
            cache_root=absolute_root(config.runtime.cache_root),
            k=0,
            commit_every_s=config.runtime.commit_every_s,
            licence=config.teacher.licence,
            provenance=head.teacher.provenance(config),
            ledger=ledger.directory.absolute(),
            encoding=config.teacher.encoding,
        )
        budgets = budgets_left(config.budgets, spent=ledger.counts(), engines=config.runtime.teacher_engine)
        return head.ask(work, engines=self.asked.engines, order=order, budgets=budgets, progress=progress)

    def keep(self, made: FillResult[SignalRequest] | None) -> None:
        """Nothing more: signals are committed as they come."""

    def summary(self, made: FillResult[SignalRequest] | None, kept: None) -> str:
        """See `Stage`."""
        if made is None:
            return "nothing to ask: every signal is in the cache"
        text = f"{made.rows:,} new signals, {made.teacher_tokens:,} teacher tokens"
        text += f", {len(made.failed):,} refused" if made.failed else ""
        return f"{text}, {made.from_others:,} fetched by another pipeline" if made.from_others else text


def pin_signals(asked: AskedHead, *, folder: Path) -> dict[str, str]:
    """Pin the signals of every set, and save their views; digests by the name of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    signals = asked.head.cache.signals
    for part in asked.plan.sets:
        requests = part.signals.requests
        lacking = set(signals.missing(requests))
        held = [request for at, request in enumerate(requests) if at not in lacking]
        if held:
            view = signals.view(signals.keys(held), dataset=part.signals.name)
            view.save(folder / f"{part.signals.name}.npz")
            found[part.signals.name] = view.digest
    return found
