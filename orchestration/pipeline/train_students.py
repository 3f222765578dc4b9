"""The students of a run: made before the teacher is asked, trained from what it said. What exists is reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from configs.places import CURVES
from configs.stages import StageConfig
from orchestration.cluster.calibration import DeriveJob, derive_in_worker
from orchestration.cluster.worker_group import train_in_group
from orchestration.inputs.plain_text import PlainTexts, read_plain_texts
from orchestration.inputs.preflight import require_positions, require_writable
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.curves import read_curve
from orchestration.pipeline.assistants import assistant_lesson
from orchestration.pipeline.chain import Link, Student, chain, selected_step, stage_notes, train_link
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.on_policy import train_on_policy
from orchestration.pipeline.rollout_maker import former_rollouts
from orchestration.pipeline.run import Run
from orchestration.pipeline.starts import Start, calibrated_start, prepare_start, start_shape, training_bytes
from orchestration.tracking.tracker import Point, flatten
from student_train.feed.steps import total_steps
from student_train.job import StepMetrics, TrainJob
from student_train.training.readiness import mean_tail_mass, require_head_mass, require_ready
from student_train.training.trial import require_trainable

CALIBRATION_CPUS = 2
MUCH_TAIL = 0.1
"""Mean probability outside the kept tokens that is worth a warning to an on-policy stage."""


def start_stage(run: Run, *, teacher: Teacher) -> dict[str, Start | None]:
    """Make the untouched students, before the teacher is asked, so that one that cannot work costs nothing.

    None stands for those that wait for a calibration; what can be said against them is said here.
    """
    starts: dict[str, Start | None] = {}
    with run.console.stage("students") as stage:
        sizes = {}
        for name, wanted in run.config.students.items():
            init = wanted.init
            if init.calibrated:
                starts[name], sizes[name] = None, start_shape(init, teacher=teacher)
            else:
                starts[name] = start = prepare_start(
                    init, teacher=teacher, artifacts=run.artifacts, models_root=run.config.runtime.models_root
                )
                sizes[name] = start.shape
            made = starts[name]
            require_trainable(teacher.files.directory if made is None else made.directory, wanted.stages)
            require_positions(run.config, model=f"students.{name}", shape=sizes[name], engine="student_engine")
            _plain_texts(run, name, positions=sizes[name].max_positions, tokenizer=teacher.files.tokenizer)
        stage.summary = "; ".join(
            f"{size / 1e6:,.1f} M parameters: {', '.join(name for name in sizes if sizes[name].parameters == size)}"
            for size in dict.fromkeys(shape.parameters for shape in sizes.values())
        )
    require_writable(run.config.runtime.run_root, key="runtime.run_root", needed_bytes=training_bytes(sizes.values()))
    return starts


def calibration_stage(run: Run, starts: Mapping[str, Start | None], *, lesson: Lesson) -> dict[str, Start]:
    """Make the untouched students that waited for the teacher's activations on the train split."""
    waiting = [name for name, start in starts.items() if start is None]
    if not waiting:
        return {name: start for name, start in starts.items() if start is not None}

    def derive(job: DeriveJob) -> None:
        run.need_cluster()
        derive_in_worker(job, cpus=CALIBRATION_CPUS)

    made: dict[str, Start] = {}
    with run.console.stage("calibration", total=len(waiting), unit="students") as stage:
        for name, start in starts.items():
            stage.update(len(made), note=name)
            made[name] = start or calibrated_start(
                run.config.students[name].init,
                lesson=lesson,
                cache_root=run.config.runtime.cache_root,
                artifacts=run.artifacts,
                accelerator=run.device,
                log_dir=run.logs,
                derive=derive,
            )
        stage.summary = f"{', '.join(waiting)} derived by what the teacher's activations say"
    return made


def train_stage(run: Run, starts: Mapping[str, Start], *, lesson: Lesson, prompts: PromptSet) -> list[Student]:
    """Train every student whose artifact does not exist yet, each from the lesson of its own teacher.

    Raises:
        DistillError: a stage cannot work with this data or start; said of the teacher's own pupils before any training.
    """
    for name, start in starts.items():
        if run.config.students[name].teacher is None:
            _require_ready(run, name, start, lesson=lesson)
    # Which prompts can be answered is for each teacher to say.
    lessons: dict[str | None, tuple[Lesson, PromptSet]] = {None: (lesson, prompts)}
    students: dict[str, Student] = {}
    for name, start in starts.items():
        above = run.config.students[name].teacher
        if above is not None:
            if above not in lessons:
                lessons[above] = assistant_lesson(run, students[above], prompts=prompts)
            _require_ready(run, name, start, lesson=lessons[above][0])
        taught, asked = lessons[above]
        students[name] = _train_student(run, name, start, lesson=taught, prompts=asked)
    return list(students.values())


def _require_ready(run: Run, name: str, start: Start, *, lesson: Lesson) -> None:
    for stage in run.config.students[name].stages:
        view = lesson.views[stage.train_view]
        require_ready(
            stage,
            view=view,
            dev=lesson.views[stage.dev_view],
            model_dir=start.directory,
            vocab=lesson.teacher.files.vocab,
            micro_batch_tokens=run.config.runtime.training.micro_batch_tokens,
        )
        require_head_mass(stage, cache=lesson.cache, view=view)
        if stage.rollout is not None:
            former_rollouts(stage.rollout, lesson=lesson)
            _warn_of_tail(run, name, stage, lesson=lesson)


def _warn_of_tail(run: Run, name: str, stage: StageConfig, *, lesson: Lesson) -> None:
    """Say when the kept tokens leave much of the teacher's probability in one bucket: its gradient is a guess there."""
    tail = mean_tail_mass(lesson.cache, view=lesson.views[stage.dev_view])
    if tail > MUCH_TAIL:
        run.console.warn(
            f"students.{name}: teacher.top_k={run.config.teacher.top_k} leaves {tail:.0%} of the teacher's probability "
            f"outside the kept tokens, where {stage.objective} learns only its sum: raise teacher.top_k"
        )


def _plain_texts(run: Run, name: str, *, positions: int, tokenizer: PreTrainedTokenizerBase) -> list[PlainTexts | None]:
    return [
        read_plain_texts(
            stage,
            key=f"students.{name}.stages.{number}.pretrain",
            tokenizer=tokenizer,
            positions=positions,
            micro_batch_tokens=run.config.runtime.training.micro_batch_tokens,
        )
        for number, stage in enumerate(run.config.students[name].stages)
    ]


def _train_student(run: Run, name: str, start: Start, *, lesson: Lesson, prompts: PromptSet) -> Student:
    tokenizer = lesson.teacher.files.tokenizer
    student = chain(
        name,
        stages=run.config.students[name].stages,
        plain=_plain_texts(run, name, positions=start.shape.max_positions, tokenizer=tokenizer),
        start=start,
        views=lesson.views,
        vocab=lesson.teacher.files.vocab,
        artifacts=run.artifacts,
    )
    axis = stage_axis([total_steps(link.stage, view=lesson.views[link.stage.train_view]) for link in student.links])
    _track_student(run, student, lesson=lesson, axis=axis)
    notes: list[str] = []
    for link, steps in zip(student.links, axis, strict=True):
        _train(run, student, link, steps=steps, lesson=lesson, prompts=prompts)
        found = stage_notes(student, link, artifacts=run.artifacts)
        for note in found:
            run.console.warn(note)
        notes += found
    return replace(student, notes=tuple(notes))


def stage_axis(steps: Sequence[int]) -> list[range]:
    """The steps that each stage of a student has in MLflow, where its stages are one curve after the other.

    A stage begins with what it measures at its step 0, before it learns: that is a point of its own.
    """
    ends = list(accumulate(count + 1 for count in steps))
    return [range(end - count - 1, end) for count, end in zip(steps, ends, strict=True)]


def _train(run: Run, student: Student, link: Link, *, steps: range, lesson: Lesson, prompts: PromptSet) -> None:
    total = len(steps) - 1
    title = f"train {student.name}" + (f" {link.stage.objective}" if len(student.links) > 1 else "")
    with run.console.stage(title, total=total, unit="steps") as stage:
        stage.update(0, note="starting the workers")

        def on_step(metrics: StepMetrics) -> None:
            losses = {name: value for name, value in metrics.values.items() if name.endswith("/loss")}
            note = ", ".join(f"{name.removesuffix('/loss')} loss {value:.3f}" for name, value in losses.items())
            stage.update(metrics.step, tokens=int(metrics.values.get("train/tokens", 0.0)), note=note)
            run.tracker.log(student.name, _points(metrics, steps=steps))

        def train(job: TrainJob) -> Mapping[str, object]:
            run.need_cluster()
            group = partial(train_in_group, job, log_dir=run.logs, accelerator=run.device, on_step=on_step)
            if link.stage.rollout is None:
                return group(meanwhile=lambda: None)
            group = partial(group, gpu_share=run.gpu_share("training worker"))
            result, shares = train_on_policy(run, student, link, lesson=lesson, prompts=prompts, group=group)
            run.tracker.log(student.name, _points(StepMetrics(total, dict(shares)), steps=steps))
            return result

        trained = train_link(
            link, config=run.config, lesson=lesson, accelerator=run.device, artifacts=run.artifacts, train=train
        )
        curve = read_curve(link.output_dir / CURVES)
        if not trained:
            run.tracker.log(student.name, [point for m in curve for point in _points(m, steps=steps)])
        dev = [m for m in curve if "dev/loss" in m.values]
        stage.summary = f"{total} steps" if trained else "reused: nothing that it depends on has changed"
        if dev:
            kept = selected_step(link, artifacts=run.artifacts)
            end = next((m for m in dev if m.step == kept), dev[-1])
            stage.summary += f", dev loss {dev[0].values['dev/loss']:.3f} -> {end.values['dev/loss']:.3f}"
            stage.summary += "" if end is dev[-1] else f" at step {end.step}, which is kept"
    run.tracker.flush()


def _points(metrics: StepMetrics, *, steps: range) -> list[Point]:
    return [Point(name, value, steps.start + metrics.step) for name, value in metrics.values.items()]


def _track_student(run: Run, student: Student, *, lesson: Lesson, axis: Sequence[range]) -> None:
    view = lesson.views[student.links[0].stage.train_view]
    settings = run.config.students[student.name].model_dump(mode="json", exclude_none=True)
    reused = all(run.artifacts.read_student(link.digest) is not None for link in student.links)
    run.tracker.child(
        student.name,
        params=flatten(settings),
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
