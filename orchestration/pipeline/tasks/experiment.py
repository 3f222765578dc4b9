"""An experiment that distils a task, from its configuration to the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from configs.architecture import read_text_model
from configs.task_experiment import TaskDistillConfig
from configs.task_starts import TransformerStart
from configs.teachers import FIRST
from orchestration.audits.planned import require_audits
from orchestration.audits.tasks.planned import require_groups
from orchestration.cluster.nodes import cluster_hardware
from orchestration.comparison.report import Report, timed
from orchestration.comparison.show import directory_of, show_report
from orchestration.inputs.imported_licences import imported_rows
from orchestration.inputs.licences import licences_in_words, with_licences
from orchestration.inputs.real_paths import resolve_task_paths
from orchestration.inputs.screen import Screened
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_files import screened_root
from orchestration.inputs.screened_tasks import screened_task
from orchestration.inputs.task_teachers import locate_teacher
from orchestration.inputs.task_texts import decision_labels
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.unwanted import Guard
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.finishing import finish
from orchestration.pipeline.guarding import opened_guard
from orchestration.pipeline.opening import opened_run, require_places, tracked_run
from orchestration.pipeline.run import Journal, Written
from orchestration.pipeline.run_costs import publish_cost
from orchestration.pipeline.session import Session
from orchestration.pipeline.tasks.comparing import Finished, report_of_task
from orchestration.pipeline.tasks.features import require_features
from orchestration.pipeline.tasks.general import GeneralStages, GeneralTexts, general_stages
from orchestration.pipeline.tasks.general_checks import require_general_models
from orchestration.pipeline.tasks.lessons import Lessons
from orchestration.pipeline.tasks.preparing import prepared_teacher
from orchestration.pipeline.tasks.reading import TaskData, read_data, read_task, without_erased, write_data_card
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, require_start
from orchestration.pipeline.tasks.students import TaskTrainer, TrainedStudents, train_students
from orchestration.pipeline.tasks.teachers import Teachers, TeachingOf, usual_teaching
from orchestration.pipeline.tasks.teaching import AskedTaskTeacher, ask_teacher
from orchestration.pipeline.tasks.training import TaskWords
from orchestration.pipeline.workers import Workers
from orchestration.plan.hardware import hardware_of
from orchestration.plan.host_memory import FILL, check_host
from orchestration.plan.tables import warn_of_slow_dtype
from orchestration.plan.task_placement import own_models, plan_task_placements

NOTHING_SCREENED: Mapping[str, Screened] = MappingProxyType({})

Until = Literal["fill", "train", "eval"]
"""The last stage that is run."""


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """How far an experiment came: students once they are trained, a report once they are compared."""

    directory: Path
    teacher_tokens: int
    students: TrainedStudents | None = None
    report: Report | None = None


def run_task_experiment(config: TaskDistillConfig, *, config_dir: Path, until: Until) -> TaskEnded:
    """Go as far as it is told, and never do again what is done."""
    real = resolve_task_paths(config, config_dir=config_dir)
    hardware = hardware_of(real, ask_cluster=cluster_hardware)
    require_places(real, accelerator=hardware.accelerator)
    require_audits(real.audit)
    real = with_licences(real, fetch=True)
    written = Written(config, config_dir, content_of(config, config_dir=config_dir))
    directory = directory_of(config, written.content)
    with opened_run(real, directory, written=written) as (journal, artifacts), ExitStack() as opened:
        run, session = TaskRun(real, directory, hardware, artifacts), opened.enter_context(Session(directory))
        guard = opened.enter_context(opened_guard(run, journal, Workers(run, journal, session)))
        screened = screened_task(real, Screening(screened_root(real), say=journal.console.say, guard=guard))
        require_groups(screened.config)
        run = replace(run, config=screened.config)
        workers = Workers(run, journal, session)
        parts = written, run, journal, workers
        return TaskExperiment(*parts, screened=screened.splits, guard=guard).run(until=until)


class TaskExperiment:
    """The stages of one experiment, in their order."""

    def __init__(
        self,
        written: Written[TaskDistillConfig],
        run: TaskRun,
        journal: Journal,
        workers: Workers,
        *,
        teaching: TeachingOf = usual_teaching,
        screened: Mapping[str, Screened] = NOTHING_SCREENED,
        guard: Guard | None = None,
    ) -> None:
        """`teaching` makes how a teacher is asked, as the configuration says unless a test has another.

        `screened` says what was found in the data, and `guard` judges texts that models write.
        """
        self._screened, self._guard = screened, guard
        self._written, self._run, self._journal, self._workers = written, run, journal, workers
        self._teachers = Teachers.of(run, journal, workers, teaching=teaching)

    def run(self, *, until: Until) -> TaskEnded:
        """Run up to and including a stage.

        Raises:
            DistillError: anything that a user can act upon. The runs in the tracker are closed as failed, or as killed
                where a budget or the user ended them.
        """
        task = read_task(self._run, self._journal)
        config_dir = self._written.config_dir
        data = read_data(
            task, self._run, self._journal, config_dir=config_dir, guard=self._guard, screened=self._screened
        )
        self._require_teacher(task)
        data = without_erased(data, self._teachers, run=self._run, journal=self._journal)
        write_data_card(data, written=self._written, run=self._run)
        warn_of_slow_dtype(self._run.config, hardware=self._run.hardware, console=self._journal.console)
        self._written.require_unchanged()  # before anything is paid for
        with tracked_run(self._written, self._run.directory, tracker=self._journal.tracker):
            return self._work(data, until=until)

    def _require_teacher(self, task: LoadedTask) -> None:
        """Refuse a teacher that cannot do the task, and students that cannot begin, before anything is paid for."""
        with self._journal.console.stage("teacher", unit="MB hashed") as stage:
            stage.summary = self._teachers.require(task, progress=stage.hashed)
        for line in licences_in_words(self._run.config):
            self._journal.console.say(f"{line}.")
        config, kind, base = self._run.config, task.config.kind, self._base(FIRST)
        models = own_models(config)
        for name, student in config.students.items():
            require_start(student.start, name=name, kind=kind, teacher_dir=base, own=models.get(name))
        require_features(config, teacher_dir=base)
        require_general_models(config, teacher_dir=base)
        self._placements = plan_task_placements(
            config,
            teachers={name: read_text_model(self._base(name)) for name in config.every_teacher},
            models=models,
            hardware=self._run.hardware,
        )
        self._require_memory(fill=False)

    def _require_memory(self, *, fill: bool) -> None:
        """Refuse what no machine has room for, and warn of what is not free now: of the fills, or of all else."""
        phases = [phase for each in self._placements.values() for phase in each.phases if (phase.label == FILL) is fill]
        for warning in check_host(phases, memory=self._run.hardware.memory, asks_teacher=fill):
            self._journal.console.warn(warning)

    def _work(self, data: TaskData, *, until: Until) -> TaskEnded:
        words, begun = self._words(data.task), self._begun_teacher(data)
        asked = self._teachers.plan(data.task, data.sets, prepared=self._prepare(data, begun=begun))
        identities = {name: teacher.identity.digest() for name, teacher in asked.names.items()}
        self._run = replace(self._run, imported=imported_rows(self._run.config, identities))
        for line in self._run.imported.terms:
            self._journal.console.say(f"{line}.")
        if asked.wanted.misses:
            self._require_memory(fill=True)
        answered = ask_teacher(asked, run=self._run, journal=self._journal)
        for name, found in data.found.screened.items():
            self._journal.tracker.log_final("fill", found.metrics(f"data.{name}"))
        if until == "fill":
            return self._ended()
        trainer = self._trainer(replace(words, taught=asked.taught), data, asked=asked)
        students = train_students(
            trainer,
            starts=self._starts(words, teacher_dir=asked.name.directory, asked=asked),
            general=self._general(data, base=self._base(FIRST) if begun is None else begun.directory),
        )
        if until == "train":
            return self._ended(students)
        finished = Finished(data.task, asked, students, answered.views, answered.saved, data.found.said)
        report = report_of_task(finished, written=self._written, run=self._run, journal=self._journal)
        report = timed(report, self._journal.console.timeline.spans)
        return self._ended(students, report=self._finish(report))

    def _finish(self, report: Report) -> Report:
        written, run, journal = self._written, self._run, self._journal
        journal.tracker.log_final("pipeline", journal.ledger.metrics())
        report = finish(report, written=written, settings=run, journal=journal, room=self._workers.room)
        publish_cost(report.results.cost, journal, device=run.device)
        show_report(report, written.config, directory=run.directory, console=journal.console)
        return report

    def _words(self, task: LoadedTask) -> TaskWords:
        config = self._run.config
        return TaskWords(
            kind=task.config.kind,
            labels=decision_labels(task.config),
            teacher=config.label_of_teachers,
            licence=config.licence_of_teachers,
            combined="; ".join(filter(None, [config.combined, config.context_in_words])),
        )

    def _prepare(self, data: TaskData, *, begun: MadeStart | None) -> dict[str, Path]:
        """The directories of the teachers that are tuned, by their names; the first is where it has `begun`."""
        found, words = dict[str, Path](), self._words(data.task)
        for name in self._run.config.every_teacher:
            config = self._run.config.of_teacher(name)
            own = replace(words, teacher=config.label_of_teachers, licence=config.licence_of_teachers, combined="")
            trainer = replace(self._trainer(own, data), run=replace(self._run, config=config))
            starts = self._starts(own, teacher_dir=self._base(name))
            tuned = prepared_teacher(trainer, starts=starts, name=name, begun=begun if name == FIRST else None)
            if tuned is not None:
                found[name] = tuned
        return found

    def _general(self, data: TaskData, *, base: Path) -> GeneralStages | None:
        if data.plain is None:
            return None
        texts = GeneralTexts(data.plain, data.sets, data.task.config)
        return general_stages(texts, base=base, run=self._run, journal=self._journal, workers=self._workers)

    def _begun_teacher(self, data: TaskData) -> MadeStart | None:
        """The teacher after general stages of its own; None without any."""
        teacher, general = self._run.config.teacher, self._general(data, base=self._base(FIRST))
        if not teacher.general:
            return None
        assert general is not None
        return general.of_teacher(teacher.general, label=teacher.model.label)

    def _trainer(self, words: TaskWords, data: TaskData, *, asked: AskedTaskTeacher | None = None) -> TaskTrainer:
        lessons = Lessons(
            data.sets,
            data.task.dev,
            task=data.task.config,
            beliefs=asked,
            inside=None if asked is None else asked.inside,
            agreement=self._run.config.data.agreement,
            folder=self._run.directory / "lessons",
        )
        return TaskTrainer(self._run, self._journal, self._workers, lessons, words)

    def _starts(self, words: TaskWords, *, teacher_dir: Path, asked: AskedTaskTeacher | None = None) -> StartsOf:
        starts = [student.start for student in self._run.config.students.values()]
        measured = any(isinstance(start, TransformerStart) and start.measured for start in starts)
        return StartsOf(
            teacher_dir=teacher_dir,
            kind=words.kind,
            labels=words.labels,
            models_root=self._run.config.runtime.models_root,
            artifacts=self._run.artifacts,
            rows=asked.rows() if asked is not None and measured else (),
            teacher_weights=None if asked is None else asked.name.identity.weights_sha256,
        )

    def _base(self, teacher: str) -> Path:
        """The model of a teacher as it is, before any tuning."""
        return locate_teacher(self._run.config, teacher)

    def _ended(self, students: TrainedStudents | None = None, *, report: Report | None = None) -> TaskEnded:
        return TaskEnded(self._run.directory, self._journal.ledger.counts().tokens, students, report)
