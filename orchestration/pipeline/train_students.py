"""The students of a run, trained from what their teachers said. What exists is reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from configs.architecture import read_text_model
from configs.stages import StageConfig
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.assistants import assistant_lesson
from orchestration.pipeline.chain import Student, chain, plain_texts, stage_notes
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.links import stage_axis
from orchestration.pipeline.retokenising import lesson_of
from orchestration.pipeline.rollout_maker import former_rollouts
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.starts import Start
from orchestration.pipeline.training_stage import Training
from orchestration.tracking.tracker import flatten
from student_train.feed.steps import total_steps
from student_train.job import TaughtInside
from student_train.training.readiness import mean_tail_mass, require_head_mass, require_ready

MUCH_TAIL = 0.1
"""Mean probability outside the kept tokens that is worth a warning to an on-policy stage."""


def train_students(
    starts: Mapping[str, Start],
    *,
    settings: RunSettings,
    journal: Journal,
    compute: Compute,
    lesson: Lesson,
    prompts: PromptSet,
) -> list[Student]:
    """Train every student whose artifact does not exist yet, each from the lesson of its own teacher.

    Raises:
        DistillError: a stage cannot work with this data or start; of the teacher's own students that is said before
            any training.
    """
    config = settings.config
    read: dict[str, Lesson] = {}
    for name, start in starts.items():
        if config.students[name].teacher is None:
            read[name] = _reading(name, start, lesson=lesson, settings=settings, journal=journal)
            _require_ready(name, start, lesson=read[name], settings=settings, journal=journal)
    # Which prompts can be answered is for each teacher to say.
    lessons: dict[str | None, tuple[Lesson, PromptSet]] = {None: (lesson, prompts)}
    students: dict[str, Student] = {}
    for name, start in starts.items():
        above = config.students[name].teacher
        if above is not None:
            if above not in lessons:
                lessons[above] = assistant_lesson(
                    students[above], settings=settings, journal=journal, compute=compute, prompts=prompts
                )
            read[name] = _reading(name, start, lesson=lessons[above][0], settings=settings, journal=journal)
            _require_ready(name, start, lesson=read[name], settings=settings, journal=journal)
        taught, asked = read[name], lessons[above][1]
        student = _addressed(name, start, lesson=taught, settings=settings)
        axis = stage_axis([_steps(each.stage, lesson=taught) for each in student.links])
        _track_student(student, lesson=taught, axis=axis, settings=settings, journal=journal)
        notes = [] if start.tokens is None else [_not_measured(name, lesson=taught)]
        for link, steps in zip(student.links, axis, strict=True):
            training = Training(student, link, steps, taught, asked, settings, journal, compute)
            run_stage(training, settings=settings, journal=journal)
            found = stage_notes(student, link, artifacts=settings.artifacts)
            for note in found:
                journal.console.warn(note)
            notes += found
        students[name] = replace(student, notes=tuple(notes))
    return list(students.values())


def _reading(name: str, start: Start, *, lesson: Lesson, settings: RunSettings, journal: Journal) -> Lesson:
    return lesson_of(name, start, lesson=lesson, stages=settings.config.students[name].stages, journal=journal)


def _not_measured(name: str, *, lesson: Lesson) -> str:
    return (
        f"{name} has another vocabulary than {lesson.teacher.files.label}: divergences, agreement and perplexity at "
        "the teacher's answers are not measurable; its text, its tasks and its speed are"
    )


def _addressed(name: str, start: Start, *, lesson: Lesson, settings: RunSettings) -> Student:
    files, stages = lesson.teacher.files, settings.config.students[name].stages
    return chain(
        name,
        stages=stages,
        plain=plain_texts(settings.config, name, positions=start.shape.max_positions, tokenizer=files.tokenizer),
        start=start,
        learned=lesson.digests,
        vocab=start.vocab(lesson.teacher),
        artifacts=settings.artifacts,
        taught=_taught(lesson.teacher) if any(stage.reads_live for stage in stages) else None,
    )


def _taught(teacher: Teacher) -> TaughtInside:
    """The teacher as it reads beside a student: its weights in the dtype that it is served in."""
    directory = teacher.files.directory.resolve()
    inside = read_text_model(directory).inside
    return TaughtInside(directory, teacher.identity.digest(), teacher.identity.dtype, inside)


def _steps(stage: StageConfig, *, lesson: Lesson) -> int:
    return total_steps(stage, view=lesson.views[stage.train_view], turns=lesson.turns_of(stage))


def _require_ready(name: str, start: Start, *, lesson: Lesson, settings: RunSettings, journal: Journal) -> None:
    for stage in settings.config.students[name].stages:
        view = lesson.views[stage.train_view]
        require_ready(
            stage,
            view=view,
            dev=lesson.views[stage.dev_view],
            model_dir=start.directory,
            vocab=start.vocab(lesson.teacher),
            micro_batch_tokens=settings.config.runtime.training.micro_batch_tokens,
        )
        require_head_mass(stage, cache=lesson.reader, view=view)
        if stage.rollout is not None:
            former_rollouts(stage.rollout, lesson=lesson)
            _warn_of_tail(name, stage, lesson=lesson, settings=settings, journal=journal)


def _warn_of_tail(name: str, stage: StageConfig, *, lesson: Lesson, settings: RunSettings, journal: Journal) -> None:
    """Say when the kept tokens leave much of the teacher's probability in one bucket: its gradient is a guess there."""
    tail = mean_tail_mass(lesson.reader, view=lesson.views[stage.dev_view])
    if tail > MUCH_TAIL:
        top_k = settings.config.teacher.top_k
        journal.console.warn(
            f"students.{name}: teacher.top_k={top_k} leaves {tail:.0%} of the teacher's probability "
            f"outside the kept tokens, where {stage.objective} learns only its sum: raise teacher.top_k"
        )


def _track_student(
    student: Student, *, lesson: Lesson, axis: Sequence[range], settings: RunSettings, journal: Journal
) -> None:
    view = lesson.views[student.links[0].stage.train_view]
    params = settings.config.students[student.name].model_dump(mode="json", exclude_none=True)
    reused = all(settings.artifacts.read_student(link.digest) is not None for link in student.links)
    journal.tracker.child(
        student.name,
        params=flatten(params),
        tags={
            "role": "student",
            "student_digest": student.digest,
            "reused": str(reused).lower(),
            "stages": "; ".join(
                f"{link.stage.objective}: steps {steps.start} to {steps.stop - 1}"
                for link, steps in zip(student.links, axis, strict=True)
            ),
        },
        dataset=(view.dataset, view.digest),
    )
