"""The students of a run: made before the teacher is asked, trained from what it said. What exists is reused."""

from __future__ import annotations

from collections.abc import Mapping

from orchestration.context import Run, Teacher
from orchestration.curves import CURVES, read_curve
from orchestration.preflight import require_positions
from orchestration.ray_train import train_in_gang
from orchestration.shapes import read_shape
from orchestration.stage_fill import Views
from orchestration.students import Link, Start, Student, chain, parameters_of, prepare_start, train_link
from orchestration.tracking import Point, flatten
from student_train.feed import total_steps
from student_train.job import StepMetrics, TrainJob


def start_stage(run: Run, *, teacher: Teacher) -> dict[str, Start]:
    """Make the untouched students. Before the teacher is asked, so that one that cannot work costs nothing."""
    with run.console.stage("students") as stage:
        starts = {
            name: prepare_start(
                wanted.init,
                teacher=teacher.files,
                teacher_weights=teacher.identity.weights_sha256,
                artifacts=run.artifacts,
                models_root=run.config.runtime.models_root,
            )
            for name, wanted in run.config.students.items()
        }
        for name, start in starts.items():
            shape = read_shape(start.directory / "config.json")
            require_positions(run.config, model=f"students.{name}", shape=shape, engine="student_engine")
        stage.summary = ", ".join(
            f"{name} {parameters_of(start.directory) / 1e6:,.1f} M parameters" for name, start in starts.items()
        )
    return starts


def train_stage(run: Run, starts: Mapping[str, Start], *, teacher: Teacher, views: Views) -> list[Student]:
    """Train every student whose artifact does not exist yet."""
    students = []
    for name, start in starts.items():
        student = chain(
            name, config=run.config, start=start, views=views.views, vocab=teacher.files.vocab, artifacts=run.artifacts
        )
        _track_student(run, student, views=views)
        for link in student.links:
            _train(run, student, link, teacher=teacher, views=views)
        students.append(student)
    return students


def _train(run: Run, student: Student, link: Link, *, teacher: Teacher, views: Views) -> None:
    steps = total_steps(link.stage, view=views.views[link.train_view])
    title = f"train {student.name}" + (f" {link.stage.objective}" if len(student.links) > 1 else "")
    with run.console.stage(title, total=steps, unit="steps") as stage:
        stage.update(0, note="starting the workers")

        def on_step(metrics: StepMetrics) -> None:
            losses = {name: value for name, value in metrics.values.items() if name.endswith("/loss")}
            note = ", ".join(f"{name.removesuffix('/loss')} loss {value:.3f}" for name, value in losses.items())
            stage.update(metrics.step, tokens=int(metrics.values.get("train/tokens", 0.0)), note=note)
            run.tracker.log(student.name, [Point(n, v, metrics.step) for n, v in metrics.values.items()])

        def train(job: TrainJob) -> Mapping[str, object]:
            run.need_cluster()
            return train_in_gang(job, log_dir=run.logs, accelerator=run.device, on_step=on_step)

        trained = train_link(
            link,
            config=run.config,
            identity=teacher.identity,
            view_paths=views.paths,
            vocab=teacher.files.vocab,
            accelerator=run.device,
            artifacts=run.artifacts,
            train=train,
        )
        curve = read_curve(link.output_dir / CURVES)
        if not trained:
            points = [Point(n, v, m.step) for m in curve for n, v in m.values.items()]
            run.tracker.log(student.name, points)
        dev = [m.values["dev/loss"] for m in curve if "dev/loss" in m.values]
        stage.summary = f"{steps} steps" if trained else "reused: nothing that it depends on has changed"
        if dev:
            stage.summary += f", dev loss {dev[0]:.3f} -> {dev[-1]:.3f}"
    run.tracker.flush()


def _track_student(run: Run, student: Student, *, views: Views) -> None:
    view = views.views[student.links[0].train_view]
    settings = run.config.students[student.name].model_dump(mode="json", exclude_none=True)
    reused = all(link.finished for link in student.links)
    run.tracker.child(
        student.name,
        params=flatten(settings),
        tags={"role": "student", "student_digest": student.digest, "reused": str(reused).lower()},
        dataset=(view.dataset, view.digest),
    )
