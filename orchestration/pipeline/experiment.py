"""An experiment from its configuration to the comparison."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal

from configs import DistillConfig
from configs.teachers import FIRST
from evaluation.cost import NOTHING_SAVED, Saved
from orchestration.audits.planned import require_audits
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.nodes import cluster_hardware
from orchestration.comparison.report import Report
from orchestration.comparison.show import directory_of, show_report
from orchestration.inputs.asked_prompts import takes_long
from orchestration.inputs.imported_licences import imported_rows
from orchestration.inputs.licences import with_licences
from orchestration.inputs.planted_rows import planted_data, planted_root
from orchestration.inputs.preflight import require_cache
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_files import screened_root
from orchestration.inputs.screened_rows import screened_data
from orchestration.inputs.shapes import PlannedShape, student_shapes
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compare import Compared, compare_students, compare_teacher, open_bench, speed_of, ways_of
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.exposure_stage import exposure_of_run
from orchestration.pipeline.finishing import finish
from orchestration.pipeline.guarding import opened_guard
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.opening import opened_run, require_places, tracked_run
from orchestration.pipeline.prepare_starts import CalibratedStarts, prepare_starts
from orchestration.pipeline.reading import NOTHING_FOUND, FoundInData, read_rows, read_tasks, read_teachers
from orchestration.pipeline.run import Journal, RunSettings, Written
from orchestration.pipeline.run_costs import publish_cost
from orchestration.pipeline.run_results import Examined, report_of
from orchestration.pipeline.session import Session
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.starts import Start
from orchestration.pipeline.teachers import AskedTeachers, OpenTeacher, begin_engines, plan_teachers, with_caches
from orchestration.pipeline.train_students import train_students
from orchestration.pipeline.workers import Workers
from orchestration.plan.hardware import hardware_of
from orchestration.plan.host_memory import HostPhase, check_host
from orchestration.plan.placement import place_further_teacher, plan_placement
from orchestration.plan.requests import FillPlan
from orchestration.plan.savings import saved_by_cache
from orchestration.plan.tables import fill_time, show_money, show_plain, show_plan, show_rollouts, warn_of_slow_dtype

Until = Literal["fill", "train", "eval"]
"""The last stage that is run."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How far an experiment came: students once they are trained, a report once they are compared.

    `teacher_tokens` were asked of the teacher over all starts of the experiment.
    """

    directory: Path
    teacher_tokens: int
    students: tuple[Student, ...] = ()
    report: Report | None = None


def run_experiment(
    config: DistillConfig,
    *,
    config_dir: Path,
    until: Until,
    session: Session | None = None,
    below: Path | None = None,
) -> Ended:
    """See `orchestration.run_pipeline`: goes as far as it is told, and never does again what is done.

    `session` holds the cluster and the worker groups of several experiments; without one, this experiment has its own.
    `below` is the directory of the sweep that it is a trial of: its run in the tracker stands below that one's.
    """
    real = resolve_paths(config, config_dir=config_dir)
    hardware = hardware_of(real, ask_cluster=cluster_hardware)
    require_places(real, accelerator=hardware.accelerator)
    require_audits(real.audit)
    real = with_licences(real, fetch=True)
    written = Written(config, config_dir, content_of(config, config_dir=config_dir))
    directory = directory_of(config, written.content)
    with opened_run(real, directory, written=written) as (journal, artifacts), ExitStack() as opened:
        if session is None:
            session = opened.enter_context(Session(directory))
        settings = RunSettings(real, directory, hardware, artifacts)
        guard = opened.enter_context(opened_guard(settings, journal, Workers(settings, journal, session)))
        screened = screened_data(real, Screening(screened_root(real), say=journal.console.say, guard=guard))
        planted = planted_data(screened.config, root=planted_root(real))
        settings = replace(settings, config=planted.config, guard=guard)
        compute = opened.enter_context(closing(Compute(settings, journal, session)))
        found = FoundInData(screened.splits, planted, guard=None if guard is None else guard.said)
        return Experiment(written, settings, journal, compute, below=below, found=found).run(until=until)


class Experiment:
    """The stages of one experiment, in their order."""

    def __init__(
        self,
        written: Written[DistillConfig],
        settings: RunSettings,
        journal: Journal,
        compute: Compute,
        *,
        below: Path | None = None,
        found: FoundInData = NOTHING_FOUND,
    ) -> None:
        self._written, self._below, self._found = written, below, found
        self._settings, self._journal, self._compute = settings, journal, compute
        self._saved = NOTHING_SAVED

    def run(self, *, until: Until) -> Ended:
        """Run up to and including a stage.

        Raises:
            DistillError: anything that a user can act upon. The runs in the tracker are closed as failed, or as killed
                where a budget or the user ended them.
        """
        teachers = read_teachers(self._settings, self._journal)
        teacher = teachers[FIRST]
        phases = self._place(teachers)
        opened = with_caches(teachers, config=self._settings.config, compute=self._compute)
        # Engines take a minute to come up. Where the rows take as long to read and nothing is kept of the teacher, they
        # are needed for sure and begin now; otherwise once nothing is wrong with the rows and some are missing.
        if opened[FIRST].surely_asked and takes_long(self._settings.config.data):
            self._begin(opened[FIRST].pool)
        prompts = read_rows(
            self._settings, self._journal, written=self._written, teacher=teacher.files, found=self._found
        )
        tasks = read_tasks(self._settings, self._journal, config_dir=self._written.config_dir)
        self._written.require_unchanged()  # before anything is paid for
        starts = prepare_starts(self._settings, self._journal, teacher=teacher, prompts=prompts)
        asked = self._plan(opened, prompts)
        if asked.first.plan.asks_teacher:
            self._begin(asked.first.pool)
        self._show_plan(asked)
        for placed, plan in zip(phases, asked.plans, strict=True):
            for warning in check_host(placed, memory=self._settings.hardware.memory, asks_teacher=plan.asks_teacher):
                self._journal.console.warn(warning)
        stored = sum(plan.stored_bytes for plan in asked.plans)
        require_cache(self._settings.config.runtime.cache_root, needed_bytes=stored)
        tracked = tracked_run(self._written, self._settings.directory, tracker=self._journal.tracker, below=self._below)
        with tracked:
            self._track_data(asked.plans)
            return self._work(asked, starts, prompts, tasks, until=until)

    def _place(self, teachers: Mapping[str, Teacher]) -> list[tuple[HostPhase, ...]]:
        """Refuse what does not fit before anything is read or made; what lies in memory in each teacher's phases."""
        config, hardware = self._settings.config, self._settings.hardware
        shapes = {name: _shape_of(teacher) for name, teacher in teachers.items()}
        students = student_shapes(config.students, teacher=shapes[FIRST])
        placed = [plan_placement(config, teacher=shapes[FIRST], students=students, hardware=hardware)]
        placed += [
            place_further_teacher(config.of_teacher(name), teacher=shapes[name], hardware=hardware)
            for name in config.teachers
        ]
        return [placement.phases for placement in placed]

    def _begin(self, pool: EnginePool | DoorPool) -> None:
        begin_engines(pool, settings=self._settings, compute=self._compute)

    def _plan(self, opened: Mapping[str, OpenTeacher], prompts: PromptSet) -> AskedTeachers:
        """Ask the caches what is missing."""
        return plan_teachers(opened, prompts, settings=self._settings, journal=self._journal, compute=self._compute)

    def _show_plan(self, asked: AskedTeachers) -> None:
        """Say what teachers will be asked, and what that will take; of doors, whether they can."""
        config, console = self._settings.config, self._journal.console
        if config.combined:
            console.say(f"{config.combined}.")
        saved = dict[str, Saved]()
        for name, each in asked.by_name.items():
            if config.teachers:
                console.say(f"{name}, {each.teacher.known_as}:")
            alone = config.of_teacher(name)
            time = fill_time(
                each.plan, config=alone, teacher=_shape_of(each.teacher), accelerator=self._settings.device
            )
            show_plan(each.plan, time=time, console=console)
            saved[name] = saved_by_cache(each.plan, cache=each.cache, price=alone.teacher.price)
            show_money(each.plan, time=time, saved=saved[name], config=alone, console=console)
        identities = {name: each.teacher.identity.digest() for name, each in asked.by_name.items()}
        self._settings = replace(self._settings, imported=imported_rows(config, identities))
        for line in self._settings.imported.terms:
            console.say(f"{line}.")
        for each in asked.by_name.values():
            # All of them before any is asked: what one cannot do is known before another one is paid.
            if each.plan.asks_teacher and isinstance(each.pool, DoorPool):
                console.say(f"{each.pool.start()}.")
        self._saved = reduce(Saved.plus, saved.values()).beyond(self._journal.ledger.counts().fill)
        show_plain(asked.first.plan, config=config, console=console)
        show_rollouts(config, console=console)
        idle = [
            name
            for name, each in asked.by_name.items()
            if not each.plan.asks_teacher or config.every_teacher[name].elsewhere is not None
        ]
        warn_of_slow_dtype(config, hardware=self._settings.hardware, console=console, nothing_to_ask=idle)

    def _track_data(self, plans: Sequence[FillPlan]) -> None:
        tracker = self._journal.tracker
        tracker.child("fill", params={"misses": sum(plan.misses for plan in plans)}, tags={"role": "fill"})
        for split, found in self._found.screened.items():
            tracker.log_final("fill", found.metrics(f"data.{split}"))

    def _work(
        self,
        asked: AskedTeachers,
        starts: Mapping[str, Start | None],
        prompts: PromptSet,
        tasks: Sequence[LoadedTask],
        *,
        until: Until,
    ) -> Ended:
        settings, journal, compute = self._settings, self._journal, self._compute
        texts = {prompt.prompt_ids: prompt.text for prompt in prompts.splits["test"]}
        lesson, prompts = asked.fill_and_pin(prompts)
        self._track_fill(asked.plans, lesson=lesson)
        if until == "fill":
            return self._ended()
        bench = open_bench(settings.config, lesson=lesson)
        ways = (*ways_of(settings, bench=bench, tasks=tasks), speed_of(settings, journal, bench=bench))
        compared = Compared(settings.artifacts)
        for name, each in asked.by_name.items():
            if until == "eval":
                compare_teacher(
                    each, name=name, ways=ways, compared=compared, settings=settings, journal=journal, compute=compute
                )
            # Engines of one teacher end before those of the next one begin.
            each.pool.release()
        untouched = run_stage(CalibratedStarts(starts, lesson, settings, compute), settings=settings, journal=journal)
        students = train_students(
            untouched, settings=settings, journal=journal, compute=compute, lesson=lesson, prompts=prompts
        )
        if until == "train":
            return self._ended(students)
        compare_students(
            students,
            ways=(*ways, *exposure_of_run(settings, bench=bench, teacher=asked.first.teacher)),
            compared=compared,
            settings=settings,
            journal=journal,
            compute=compute,
            lesson=lesson,
        )
        journal.tracker.log_final("pipeline", journal.ledger.metrics())
        examined = Examined(bench, asked.teachers, prompts, texts, tasks, students, self._found.said)
        report = report_of(
            compared, examined, written=self._written, settings=settings, journal=journal, saved=self._saved
        )
        return self._ended(students, report=self._finish(report))

    def _ended(self, students: Sequence[Student] = (), *, report: Report | None = None) -> Ended:
        tokens = self._journal.ledger.counts().tokens
        return Ended(self._settings.directory, tokens, tuple(students), report)

    def _track_fill(self, plans: Sequence[FillPlan], *, lesson: Lesson) -> None:
        rows = sum(len(part.sequences.requests) for plan in plans for part in plan.sets)
        misses = sum(plan.misses for plan in plans)
        self._journal.track(
            "fill",
            {
                "cache/hit_rate": 1.0 - misses / rows,
                "cache/bytes_per_token": lesson.cache.stats().bytes_per_token,
                "fill/teacher_tokens": float(self._journal.ledger.counts().fill),
            },
        )
        logger.info("views: %s", {name: view.digest for name, view in lesson.views.items()})

    def _finish(self, report: Report) -> Report:
        written, settings, journal = self._written, self._settings, self._journal
        report = finish(report, written=written, settings=settings, journal=journal, room=self._room_for_audits)
        show_report(report, written.config, directory=settings.directory, console=journal.console)
        publish_cost(report.results.cost, journal, device=settings.device)
        return report

    @contextmanager
    def _room_for_audits(self) -> Iterator[None]:
        self._compute.close()
        with self._compute.room():
            yield


def _shape_of(teacher: Teacher) -> PlannedShape:
    return PlannedShape(teacher.files.label, teacher.files.shape, assumed=False)
