"""What a teacher with a task head says about the examples of a task: asked once, held against its weights first.

Engines start only if something is missing in the cache, and before anything of them is kept their answers are compared
with plain forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from cache import Signal, SignalRequest, TeacherCache
from configs.task import TaskConfig
from configs.task_features import StateName
from configs.task_teacher import TaskTeacherConfig
from evaluation.tasks.examples import Example
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, FillResult, fill_signals
from orchestration.fill.work import Engines
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_teachers import TaskTeacher
from orchestration.inputs.task_texts import ReadExample
from orchestration.inputs.wide_texts import read_wide
from orchestration.outputs.console import ProgressSink
from orchestration.plan.signal_requests import (
    HEAD_SIGNALS,
    RefusedSignals,
    SignalPlan,
    SignalWidths,
    plan_signals,
    signal_sets,
    state_signals,
)
from teacher_server.signal_check import check_requests


class CheckedEngines(Engines[SignalRequest], Protocol):
    """Engines that can be held against plain forward passes (`signal_engines.SignalPool`)."""

    def check(self, requests: Sequence[SignalRequest]) -> None:
        """Compare what they say to some requests.

        Raises:
            EngineError: they do not say what their weights say.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeadTeacher:
    """A teacher with a head, its cache, and what it is not asked."""

    teacher: TaskTeacher
    task: TaskConfig
    settings: TaskTeacherConfig
    cache: TeacherCache
    refusals: RefusedSignals | None = None

    def plan(self, sets: Mapping[str, Sequence[Example]], signals: tuple[Signal, ...]) -> SignalPlan:
        """What the cache lacks of these signals of some sets of examples, by their names."""
        self.cache.refresh()
        return plan_signals(
            signal_sets({name: self._read(examples) for name, examples in sets.items()}, signals),
            cache=self.cache.signals,
            widths=SignalWidths(len(self.teacher.columns), self.teacher.model.hidden),
            encoding=self.settings.encoding,
            refused=self.refusals,
        )

    def ask(
        self, plan: SignalPlan, *, engines: CheckedEngines, order: FillOrder, budgets: Budgets, progress: ProgressSink
    ) -> FillResult[SignalRequest]:
        """Ask for what a plan lacks; nobody is asked again for what the teacher refuses.

        Raises:
            EngineError: the engines do not agree with plain passes, and nothing is kept, or they kept dying.
            BudgetReached: a budget ended it before all signals were there.
        """
        if not plan.asks_teacher:
            return FillResult(failed=plan.refused)
        engines.check(check_requests(request for part in plan.sets for request in part.missing))
        result = fill_signals(plan, cache=self.cache, engines=engines, order=order, budgets=budgets, progress=progress)
        self.cache.refresh()
        return result

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None]:
        """The logits that the cache holds about each example, in the task's order; None where it holds none."""
        read, signal = self._read(examples), Signal(HEAD_SIGNALS[self.task.kind])
        store = self.cache.signals
        records = store.get_many(store.keys(SignalRequest(one.token_ids, one.split, signal) for one in read))
        columns = list(self.teacher.columns)
        return [
            None if record is None else Beliefs.of(one, record.values[:, columns])
            for one, record in zip(read, records, strict=True)
        ]

    def states(
        self, examples: Sequence[Example], names: Sequence[StateName]
    ) -> list[Float32[np.ndarray, "S H"] | None]:
        """The hidden states that the cache holds about each example, in this order; None where it lacks one."""
        store = self.cache.signals
        asked = [
            SignalRequest(one.token_ids, one.split, signal)
            for one in self._read(examples)
            for signal in state_signals(names)
        ]
        records = store.get_many(store.keys(asked))
        rows = [records[at : at + len(names)] for at in range(0, len(records), len(names))]
        return [
            None if any(record is None for record in row) else np.concatenate([each.values for each in row if each])
            for row in rows
        ]

    def _read(self, examples: Sequence[Example]) -> list[ReadExample]:
        return read_wide(self.teacher.tokenizer, examples, task=self.task, max_tokens=self.settings.max_tokens)
