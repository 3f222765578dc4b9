"""Asking a teacher with a task head about all examples of an experiment, as a stage of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cache import SignalRequest
from cache.erasures import Erasures
from configs.places import absolute_root
from configs.teachers import FIRST, key_of_teacher
from evaluation.cost import Saved
from evaluation.results import DevScores, FinalScores, TaskExample
from evaluation.tasks.examples import Example
from orchestration.cluster.signal_door_pool import SignalDoorPool
from orchestration.cluster.signal_engines import SignalPool, SignalSpec
from orchestration.comparison.belief_answers import answers_of_beliefs
from orchestration.comparison.predicted_answers import ANSWERED_BY
from orchestration.comparison.rows import bytes_on_disk, stored_parameters
from orchestration.fill.budgets import budgets_left
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import FillResult
from orchestration.fill.refusals import open_signal_refusals, signal_engine_version
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.signal_doors import SignalDoor
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_teachers import TaskTeacher, open_task_cache, open_task_teacher
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.wide_texts import read_wide
from orchestration.outputs.console import Console, StageProgress
from orchestration.pipeline.run import Journal
from orchestration.pipeline.stage import Line, Stage, run_stage
from orchestration.pipeline.tasks.comparison import GivenAnswers
from orchestration.pipeline.tasks.head_teacher import CheckedEngines, HeadTeacher
from orchestration.pipeline.tasks.lessons import DEV, TEST
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.teaching import HashingProgress, TeacherName, Wanted
from orchestration.pipeline.workers import Workers
from orchestration.plan.savings import saved_signals
from orchestration.plan.signal_requests import SignalPlan, asked_sets, wanted_signals
from orchestration.plan.signal_tables import show_signal_plan, signal_fill_time
from orchestration.plan.task_features import wanted_states
from orchestration.plan.task_placement import own_models
from student_train.job import TaughtInside
from student_train.starts.task_layers import Rows


class ReleasedEngines(CheckedEngines, Protocol):
    """Engines that can be let go (`signal_engines.SignalPool`)."""

    def release(self) -> None:
        """End them, and give their memory and devices back."""
        ...


@dataclass(frozen=True, slots=True)
class HeadTeaching:
    """See `Teaching`. `engines` makes those of a teacher, not started; Ray's unless a test has others."""

    run: TaskRun
    journal: Journal
    workers: Workers
    engines: Callable[[TaskTeacher], ReleasedEngines] | None = None

    def require(self, task: LoadedTask, *, progress: HashingProgress) -> str:
        """See `Teaching`."""
        config = self.run.config
        teacher = open_task_teacher(config, task.config, progress=progress, key=key_of_teacher(self.run.asks))
        tuned = ", to be tuned on gold" if config.teacher.prepare else ""
        there = f", behind {config.teacher.serve.host}" if config.teacher.serve is not None else ""
        return f"{teacher.label}, identity {teacher.identity.digest()[:12]}{tuned}{there}"

    def forgotten(self, task: LoadedTask, examples: Sequence[Example], erasures: Erasures) -> list[bool]:
        """See `Teaching`."""
        teacher = open_task_teacher(self.run.config, task.config)
        longest = self.run.config.teacher.max_tokens
        read = read_wide(teacher.tokenizer, examples, task=task.config, max_tokens=longest)
        return [erasures.hold(each.token_ids, prompt_len=each.split) for each in read]

    def plan(self, task: LoadedTask, sets: TaskSets, *, prepared: Path | None, tests: bool = False) -> AskedHead:
        """See `Teaching`."""
        config = self.run.config
        teacher = open_task_teacher(config, task.config, prepared=prepared)
        refusals = open_signal_refusals(config, teacher.identity)
        head = HeadTeacher(teacher, task.config, config.teacher, open_task_cache(config, teacher), refusals)
        states = wanted_states(config, teacher=teacher.model, models=own_models(config))
        # The model that a directory holds would read rows without their context: what it says of test is asked too.
        tests = tests or task.context is not None
        asked = {**sets.only(asked_sets(config)), DEV: task.dev, **({TEST: task.test} if tests else {})}
        plan = head.plan(asked, wanted_signals(config, kind=task.config.kind, states=states))
        engines = (self.engines or self._engines)(teacher)
        return AskedHead(head, plan, engines, task, self.run, self.journal, self.workers)

    def _engines(self, teacher: TaskTeacher) -> ReleasedEngines:
        """Those of this run, or whoever answers behind a door."""
        wanted = self.run.config.teacher
        if wanted.serve is not None:
            return SignalDoorPool(SignalDoor(wanted.serve, teacher, wanted, key_of_teacher(self.run.asks)))
        return self._pool(teacher)

    def _pool(self, teacher: TaskTeacher) -> SignalPool:
        spec = SignalSpec(
            model_dir=teacher.directory.resolve(),
            identity=teacher.identity,
            settings=self.run.config.runtime.teacher_engine,
            accelerator=self.run.device,
            log_dir=self.run.logs,
            ledger=self.journal.ledger.directory.absolute(),
        )
        costs = self.journal.console.costs
        return SignalPool(
            spec,
            clock=self.journal.ledger,
            room=self.workers.room,
            joules=lambda: costs.meter.read().joules,
        )


@dataclass(frozen=True, slots=True)
class AskedHead:
    """See `AskedTaskTeacher`: a teacher with a head, what it is to be asked, and the engines that would be."""

    head: HeadTeacher
    plan: SignalPlan
    engines: ReleasedEngines
    task: LoadedTask
    run: TaskRun
    journal: Journal
    workers: Workers

    @property
    def name(self) -> TeacherName:
        """See `AskedTaskTeacher`."""
        teacher = self.head.teacher
        return TeacherName(teacher.directory, teacher.label, teacher.identity)

    @property
    def inside(self) -> HeadTeacher:
        """See `AskedTaskTeacher`."""
        return self.head

    @property
    def taught(self) -> TaughtInside:
        """See `AskedTaskTeacher`."""
        teacher = self.head.teacher
        return TaughtInside(
            directory=teacher.directory.resolve(),
            identity=teacher.identity.digest(),
            dtype=teacher.identity.dtype,
            sizes=teacher.model.inside,
            columns=teacher.columns,
        )

    @property
    def names(self) -> dict[str, TeacherName]:
        """See `AskedTaskTeacher`."""
        return {FIRST: self.name}

    @property
    def wanted(self) -> Wanted:
        """See `AskedTaskTeacher`."""
        return Wanted(len(self.plan.requests), self.plan.misses, self.plan.stored_bytes)

    def show(self, console: Console) -> None:
        """See `AskedTaskTeacher`."""
        config = self.run.config
        time = signal_fill_time(self.plan, config=config, teacher=self.head.teacher.model, accelerator=self.run.device)
        show_signal_plan(self.plan, time=time, max_tokens=config.teacher.max_tokens, console=console)

    def saved(self) -> Saved:
        """See `AskedTaskTeacher`."""
        return saved_signals(self.plan, cache=self.head.cache)

    def ask(self) -> None:
        """See `AskedTaskTeacher`."""
        run_stage(SignalFill(self), settings=self.run, journal=self.journal)
        self.engines.release()

    def pin(self, folder: Path) -> dict[str, str]:
        """See `AskedTaskTeacher`."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        signals = self.head.cache.signals
        for part in self.plan.sets:
            # A view has signals of one width.
            answers = [request for request in part.signals.requests if request.signal.name != "state"]
            states = [request for request in part.signals.requests if request.signal.name == "state"]
            for name, requests in ((part.signals.name, answers), (f"{part.signals.name}-states", states)):
                lacking = set(signals.missing(requests))
                held = [request for at, request in enumerate(requests) if at not in lacking]
                if held:
                    view = signals.view(signals.keys(held), dataset=name)
                    view.save(folder / f"{name}.npz")
                    found[name] = view.digest
        return found

    def rows(self) -> Rows:
        """See `AskedTaskTeacher`."""
        return [np.array(text.token_ids, dtype=np.int64) for part in self.plan.sets for text in part.signals.texts]

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None]:
        """See `TeacherBeliefs`."""
        return self.head.about(examples)

    def given(self) -> dict[str, GivenAnswers]:
        """See `AskedTaskTeacher`: its directory holds a model that answers, unless it is shown more than a row."""
        if self.task.context is None:
            return {}
        config, teacher = self.task.config, self.head.teacher
        answers = GivenAnswers(
            dev=DevScores(config.name, ANSWERED_BY, self._answered(self.task.dev)),
            test=FinalScores(config.name, ANSWERED_BY, self._answered(self.task.test)),
            parameters=stored_parameters(teacher.directory),
            disk_bytes=bytes_on_disk(teacher.directory),
            digest=teacher.identity.digest(),
            note="answered with teacher_context; how fast it is was measured on the rows alone",
            directory=teacher.directory,
        )
        return {FIRST: answers}

    def _answered(self, examples: Sequence[Example]) -> tuple[TaskExample, ...]:
        return answers_of_beliefs(examples, self.about(examples), task=self.task.config)

    def notes(self) -> tuple[str, ...]:
        """See `AskedTaskTeacher`: what is left out, the lessons say."""
        return ()


@dataclass(slots=True)
class SignalFill(Stage[SignalPlan, FillResult[SignalRequest], None]):
    """Asks for what the cache lacks; keeps it as it comes."""

    asked: AskedHead

    def prepare(self) -> SignalPlan | None:
        """The plan, unless every signal is in the cache."""
        if not self.asked.plan.asks_teacher:
            return None
        if self.asked.run.config.teacher.serve is None:
            self.asked.workers.need_cluster()
        return self.asked.plan

    def line(self) -> Line:
        """See `Stage`."""
        return Line("fill", total=self.asked.plan.misses, unit="signals", always_shown=True, place="teacher")

    def run(self, work: SignalPlan, progress: StageProgress) -> FillResult[SignalRequest]:
        """Fill within the budgets of the experiment, once the engines agree with a plain forward pass.

        Raises:
            BudgetReached: a budget ended the fill before everything was there.
            EngineError: an engine does not say what its weights say, or kept dying.
            ConfigError: the teacher behind its door is not the one here.
            DoorError: the door stays away, or answers what cannot be.
        """
        config, ledger, head = self.asked.run.config, self.asked.journal.ledger, self.asked.head
        own = config.teacher.serve is None
        note = "loading the teacher, comparing it with a plain forward pass" if own else "asking who is behind the door"
        progress.update(0, note=note)
        order = FillOrder(
            scoring=True,
            cache_root=absolute_root(config.runtime.cache_root),
            k=0,
            commit_every_s=config.runtime.commit_every_s,
            licence=config.teacher.licence_as_used,
            provenance=head.teacher.provenance(config),
            ledger=ledger.directory.absolute(),
            encoding=config.teacher.encoding,
            # Behind a door nobody's GPUs are counted here.
            gpus=1.0 if own else 0.0,
            engine=signal_engine_version(config),
        )
        budgets = budgets_left(
            config.budgets, spent=ledger.counts(), engines=config.runtime.teacher_engine if own else None
        )
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
