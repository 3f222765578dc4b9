"""From trained students to the report of a task experiment: who is compared, and what the report rests on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from evaluation.cost import Saved
from orchestration.comparison.report import Report
from orchestration.inputs.licences import licences_in_words
from orchestration.inputs.models import locate_model
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.foundations import model_sources, rested_on
from orchestration.pipeline.run import Journal, Written
from orchestration.pipeline.run_costs import cost_of_run
from orchestration.pipeline.tasks.comparison import TaskModel, compare_task_models
from orchestration.pipeline.tasks.report import TaughtBy, task_report
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.starts import MadeStart
from orchestration.pipeline.tasks.students import TrainedStudents
from orchestration.pipeline.tasks.teaching import AskedTaskTeacher
from orchestration.pipeline.training_cost import training_of
from student_train.models.layer_states import layer_states


@dataclass(frozen=True, slots=True)
class Finished:
    """What a task experiment has come to before the comparison.

    `views` are digests by set, `saved` is what its answers took that were in the cache before, and `screened` says what
    was found in the data.
    """

    task: LoadedTask
    teacher: AskedTaskTeacher
    students: TrainedStudents
    views: dict[str, str]
    saved: Saved
    screened: tuple[str, ...] = ()


def report_of_task(
    finished: Finished, *, written: Written[TaskDistillConfig], run: TaskRun, journal: Journal
) -> Report:
    """Compare everybody, and put together what was found.

    Raises:
        DistillError: something that the report rests on has gone since.
    """
    untouched = _untouched(finished.students)
    starts = {model.digests[0]: model.name for model in untouched}
    given = finished.teacher.given()
    models = [*_teachers(finished.teacher, given), *untouched, *_students(finished.students, starts=starts, run=run)]
    compared = compare_task_models(
        models,
        task=finished.task,
        settings=run,
        journal=journal,
        given=given,
        cka=layer_states if run.config.evaluation.cka else None,
    )
    chains = [chain for chains in finished.students.chains.values() for chain in chains]
    rests_on = rested_on(
        run.config,
        directories={
            key: locate_model(source, models_root=run.config.runtime.models_root)
            for key, source in model_sources(run.config)
        },
        starts=[chain.start.digest for chain in chains],
        students=[link.digest for chain in chains for link in chain.links],
        run_dir=run.directory,
    )
    return task_report(
        compared,
        task=finished.task,
        written=written,
        teacher=_taught_by(finished, run),
        rests_on=rests_on,
        cost=cost_of_run(settings=run, journal=journal, saved=finished.saved),
        notes=(
            *filter(None, [run.config.combined, run.config.context_in_words]),
            *finished.screened,
            *finished.teacher.notes(),
            *_notes(finished.students),
        ),
    )


def _taught_by(finished: Finished, run: TaskRun) -> TaughtBy:
    config = run.config
    identities = {name: each.identity.digest() for name, each in finished.teacher.names.items()}
    return TaughtBy(
        config.label_of_teachers,
        identities[FIRST] if len(identities) == 1 else digest_of(teachers=identities),
        config.licence_of_teachers,
        digest_of(views=finished.views),
        (*licences_in_words(config), *run.imported.terms),
    )


def _teachers(asked: AskedTaskTeacher, given: Collection[str]) -> list[TaskModel]:
    """Every teacher; first what several answer together, which students are held against."""
    names = asked.names
    together = [name for name in given if name not in names]
    digests = tuple(each.identity.digest() for each in names.values())
    rows = [_teacher(name, (), (digest_of(teachers=digests),)) for name in together]
    return rows + [_teacher(name, (each.directory,), (each.identity.digest(),)) for name, each in names.items()]


def _teacher(name: str, directories: tuple[Path, ...], digests: tuple[str, ...]) -> TaskModel:
    return TaskModel(
        name=name, role="teacher", method="", start=None, directories=directories, digests=digests, training=None
    )


def _untouched(students: TrainedStudents) -> list[TaskModel]:
    """What students began as, each once, where that can do the task already; the head of any other is at chance."""
    starts: dict[str, tuple[str, MadeStart]] = {}
    for name, chains in students.chains.items():
        if chains[0].start.knows_task:
            starts.setdefault(chains[0].start.digest, (name, chains[0].start))
    return [
        TaskModel(
            name="untouched" if len(starts) == 1 else f"untouched ({name})",
            role="untouched",
            method="",
            start=None,
            directories=(start.directory,),
            digests=(start.digest,),
            training=None,
        )
        for name, start in starts.values()
    ]


def _students(students: TrainedStudents, *, starts: Mapping[str, str], run: TaskRun) -> list[TaskModel]:
    """`starts` are the names of untouched students by their digests."""
    return [
        TaskModel(
            name=name,
            role="student",
            method=chains[0].method,
            start=starts.get(chains[0].start.digest),
            directories=tuple(chain.directory for chain in chains),
            digests=tuple(chain.digest for chain in chains),
            training=training_of(chains[0].links, artifacts=run.artifacts),
        )
        for name, chains in students.chains.items()
    ]


def _notes(students: TrainedStudents) -> tuple[str, ...]:
    """What was said about the data of each student, once."""
    said = [
        f"{name}: {note}"
        for name, chains in students.chains.items()
        for chain in chains
        for link in chain.links
        for note in link.lesson.notes
    ]
    return tuple(dict.fromkeys(said))
