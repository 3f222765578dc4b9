"""The comparison at the end of an experiment that distils a task: teacher, students and those trained on gold alone.

Everybody answers dev and test by its task head. A student that was trained with several seeds is one row: its answers
under all of them, and of the seed that did best on dev what it takes to serve it. Whatever is broken costs the others
nothing: a model that does not load is a line among the failures, a seed of it a line of its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from configs import DistillError
from evaluation.results import (
    DevScores,
    FinalScores,
    ModelResults,
    TaskExample,
    Training,
)
from evaluation.statistics import number_in_words
from evaluation.tasks.measuring import measure_one
from orchestration.comparison.layer_likeness import Reads, Stored, likenesses
from orchestration.comparison.numbers import task_metrics_of
from orchestration.comparison.predicted_answers import (
    ANSWERED_BY,
    AnswersTexts,
    KeptPredictions,
    Split,
    address,
    input_of,
    predictions,
)
from orchestration.comparison.rows import bytes_on_disk
from orchestration.comparison.text_speed import Texts, Timed, time_texts
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.run import AnyRun, Journal
from student_train.models.predicting import Predictor

Timing = Callable[[Mapping[str, Path], Texts, Path], Timed]


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A row of the comparison.

    `directories` hold one model a training seed, `digests` their content addresses. `method` names the objectives of
    its stages in order. A student that was trained on gold alone to be compared with another is called as
    `evaluation.verdict.gold_twin` says.
    """

    name: str
    role: Literal["teacher", "untouched", "student"]
    method: str
    start: str | None
    directories: tuple[Path, ...]
    digests: tuple[str, ...]
    training: Training | None


@dataclass(frozen=True, slots=True)
class GivenAnswers:
    """What was answered elsewhere: by a teacher without a task head, whom only engines can ask, or by several together.

    `note` says how, for a reader of the comparison. Where a model can be opened after all, `directory` is what is
    measured for its speed.
    """

    dev: DevScores
    test: FinalScores
    parameters: int
    disk_bytes: int
    digest: str
    note: str
    directory: Path | None = None


@dataclass(slots=True)
class ComparedTask:
    """What was found: rows in the order of the models, a line for each that has none, and where answers are kept.

    `evidence` is in words by digest. `shown` is the directory of each row that would be shipped, `notes` what a reader
    has to know.
    """

    rows: list[ModelResults] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    evidence: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shown: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answered:
    """One training seed of a model."""

    directory: Path
    digest: str
    kept: Mapping[Split, KeptPredictions]


def time_in_processes(models: Mapping[str, Path], texts: Texts, log: Path) -> Timed:
    """The usual `Timing`."""
    return time_texts(models, texts, log=log)


def compare_task_models(
    models: Sequence[TaskModel],
    *,
    task: LoadedTask,
    settings: AnyRun,
    journal: Journal,
    given: Mapping[str, GivenAnswers] | None = None,
    opened: Callable[[Path], AnswersTexts] = Predictor,
    timed: Timing = time_in_processes,
    cka: Reads | None = None,
) -> ComparedTask:
    """Have every model answer dev and test, and measure what each takes, side by side.

    `given` are answers of models that cannot be opened, by name. With `cka`, which reads the layers of a model, those
    of students are held against those of the first teacher that can be opened.
    """
    compared = ComparedTask()
    with journal.console.stage("comparison", total=len(models), unit="models") as stage:
        for number, model in enumerate(models):
            told = None if given is None else given.get(model.name)
            if told is not None:
                _add_given(compared, model, told)
            elif (row := _row(model, task=task, settings=settings, opened=opened, compared=compared)) is not None:
                compared.rows.append(row)
            stage.update(number + 1)
        compared.rows = evened(compared.rows)
        settings.logs.mkdir(parents=True, exist_ok=True)
        _add_speeds(compared, task=task, log=settings.logs / "text-speed.log", timed=timed)
        if cka is not None:
            _add_likenesses(compared, task=task, artifacts=settings.artifacts, reads=cka)
        failed = len(models) - len(compared.rows)
        stage.summary = f"{len(compared.rows)} models on {len(task.test)} test rows" + (
            f"; {failed} could not be asked" if failed else ""
        )
    for row in compared.rows:
        if row.role != "student":
            journal.tracker.child(row.name, params={}, tags={"role": row.role})
        journal.track(row.name, task_metrics_of(row, task.facts))
    return compared


def evened(rows: Sequence[ModelResults]) -> list[ModelResults]:
    """The rows with as many answers to each example: who has fewer seeds gives the same again under further ones."""
    seeds = math.lcm(*(row.seeds for row in rows)) if rows else 1
    return [
        replace(
            row,
            tasks=tuple(replace(each, examples=_repeated(each.examples, row.seeds, seeds)) for each in row.tasks),
            dev=tuple(replace(each, examples=_repeated(each.examples, row.seeds, seeds)) for each in row.dev),
        )
        for row in rows
    ]


def _row(
    model: TaskModel,
    *,
    task: LoadedTask,
    settings: AnyRun,
    opened: Callable[[Path], AnswersTexts],
    compared: ComparedTask,
) -> ModelResults | None:
    """A row of the seeds that answered; None where none did, and a line says why."""
    answered, failures = list[_Answered](), list[str]()
    several = len(model.directories) > 1
    for seed, (directory, digest) in enumerate(zip(model.directories, model.digests, strict=True)):
        try:
            kept = predictions(directory, digest, task=task, artifacts=settings.artifacts, opened=opened)
        except DistillError as error:
            failures.append(f"{f'seed {seed}: ' if several else ''}{error}")
        else:
            answered.append(_Answered(directory, digest, kept))
    if not answered:
        compared.failures.append(f"{model.name}: {'; '.join(failures) or 'there is no directory of it'}")
        return None
    scores = {split: _examples(answered, split) for split in ("dev", "test")}
    shown = answered[_best_on_dev(DevScores(task.config.name, ANSWERED_BY, scores["dev"]), task=task)]
    row = ModelResults(
        name=model.name,
        role=model.role,
        method=model.method,
        start=model.start,
        digest=shown.digest,
        parameters=shown.kept["test"].parameters,
        disk_bytes=bytes_on_disk(shown.directory),
        closeness=None,
        exposure=None,
        answers=(),
        answer_tokens=(),
        tasks=(FinalScores(task.config.name, ANSWERED_BY, scores["test"]),),
        serving=None,
        training=model.training,
        failures=tuple(failures),
        dev=(DevScores(task.config.name, ANSWERED_BY, scores["dev"]),) if scores["dev"] else (),
        seeds=len(answered),
    )
    _note(compared, model, answered, shown, task=task)
    return row


def _add_given(compared: ComparedTask, model: TaskModel, given: GivenAnswers) -> None:
    """The row of a model that answered elsewhere, and what is to be said of it."""
    row = ModelResults(
        name=model.name,
        role=model.role,
        method=model.method,
        start=model.start,
        digest=given.digest,
        parameters=given.parameters,
        disk_bytes=given.disk_bytes,
        closeness=None,
        exposure=None,
        answers=(),
        answer_tokens=(),
        tasks=(given.test,),
        serving=None,
        training=model.training,
        failures=(),
        dev=(given.dev,) if given.dev.examples else (),
    )
    compared.rows.append(row)
    compared.notes.append(f"{model.name}: {given.note}")
    if given.directory is not None:
        compared.shown[model.name] = given.directory


def _examples(answered: Sequence[_Answered], split: Split) -> tuple[TaskExample, ...]:
    """The answers under every training seed."""
    return tuple(
        replace(example, seed=seed) for seed, each in enumerate(answered) for example in each.kept[split].examples
    )


def _best_on_dev(dev: DevScores, *, task: LoadedTask) -> int:
    """The training seed that is best on dev; the first of equal ones, and where there is no dev split."""
    values = _by_seed(dev.examples, task=task)
    known = {seed: value for seed, value in values.items() if math.isfinite(value)}
    return max(known, key=lambda seed: (known[seed], -seed), default=0)


def _by_seed(examples: Sequence[TaskExample], *, task: LoadedTask) -> dict[int, float]:
    """What the task is judged by, under each training seed."""
    seeds = dict.fromkeys(example.seed for example in examples)
    return {
        seed: measure_one(task.facts, [example for example in examples if example.seed == seed]).value for seed in seeds
    }


def _note(
    compared: ComparedTask, model: TaskModel, answered: Sequence[_Answered], shown: _Answered, *, task: LoadedTask
) -> None:
    """Where answers are kept and the model lies, how far its seeds lie apart, and what it did not see."""
    compared.shown[model.name] = shown.directory
    for each in answered:
        for split in each.kept:
            at = address(each.digest, task, split)
            compared.evidence[at] = f"what {model.name} answered on {split}"
    if len(answered) > 1:
        examples = _examples(answered, "test")
        unit = measure_one(task.facts, examples).metric.unit
        listed = ", ".join(number_in_words(value, unit) for value in _by_seed(examples, task=task).values())
        compared.notes.append(
            f"{model.name}: {task.facts.metric.replace('_', ' ')} on test under {len(answered)} training seeds: "
            f"{listed}; the one that is best on dev is {shown.directory}"
        )
    cut = max(each.kept["test"].cut for each in answered)
    if cut:
        compared.notes.append(f"{model.name}: {cut} of {len(task.test)} test texts are longer than it reads, and cut")


def _repeated(examples: tuple[TaskExample, ...], own: int, wanted: int) -> tuple[TaskExample, ...]:
    """The answers under `own` seeds again and again, until there are `wanted` seeds."""
    return tuple(
        replace(example, seed=example.seed + again * own) for again in range(wanted // own) for example in examples
    )


def _add_speeds(compared: ComparedTask, *, task: LoadedTask, log: Path, timed: Timing) -> None:
    """Measure all rows side by side; one that could not be measured says so. Nobody ships an untouched student."""
    timed_rows = [row for row in compared.rows if row.name in compared.shown and row.role != "untouched"]
    models = {row.name: compared.shown[row.name] for row in timed_rows}
    if not models or not task.test:
        return
    texts = [input_of(example, task.config.kind) for example in task.test]
    found = timed(models, texts, log)
    compared.rows = [
        replace(
            row,
            serving=found.serving.get(row.name),
            failures=row.failures + ((f"speed: {found.failures[row.name]}",) if row.name in found.failures else ()),
        )
        for row in compared.rows
    ]


def _add_likenesses(compared: ComparedTask, *, task: LoadedTask, artifacts: Artifacts, reads: Reads) -> None:
    """Hold the layers of students against those of their teacher; one that could not be read says so."""
    stored = {
        row.name: Stored(row.name, compared.shown[row.name], row.digest)
        for row in compared.rows
        if row.name in compared.shown
    }
    teacher = next((stored[row.name] for row in compared.rows if row.role == "teacher" and row.name in stored), None)
    if teacher is None:
        compared.notes.append("CKA: there is no teacher whose layers could be read")
        return
    students = [stored[row.name] for row in compared.rows if row.role == "student" and row.name in stored]
    found, failures = likenesses(students, teacher=teacher, task=task, artifacts=artifacts, reads=reads)
    compared.rows = [
        replace(
            row,
            likeness=found.get(row.name),
            failures=row.failures + ((f"CKA: {failures[row.name]}",) if row.name in failures else ()),
        )
        for row in compared.rows
    ]
