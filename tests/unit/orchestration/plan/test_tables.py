"""The plan as people read it."""

from __future__ import annotations

from plan_builders import NODE, experiment, place, planned

from orchestration.plan.duration import TeacherWork, expected_seconds
from orchestration.plan.hardware import Hardware, HostMemory
from orchestration.plan.placement import plan_placement
from orchestration.plan.tables import render_placement


def test_the_report_shows_places_arithmetic_and_what_is_assumed() -> None:
    config = experiment(teacher_engine={"count": 2, "tensor_parallel": 2})
    teacher, student = planned(assumed=True), planned(assumed=False)
    placement = plan_placement(config, teacher=teacher, students={"kd": student}, hardware=NODE)
    time = expected_seconds(
        teacher,
        work=TeacherWork(10**6, 10**6),
        settings=config.runtime.teacher_engine,
        accelerator="gpu",
        dtype="bfloat16",
    )
    lines = render_placement(placement, fill=time)
    assert lines[:4] == [
        "placement on GPUs: 1 node(s) x 8 x 80 GiB; phases follow one another and reuse them, Ray chooses which",
        "  teacher engines: 2 x 2 GPUs",
        "  training workers: 2 x 1 GPU",
        "  student engines: 1 x 1 GPU",
    ]
    (engine,) = [line for line in lines if line.startswith("  teacher engine:")]
    (worker,) = [line for line in lines if line.startswith("  training worker, kd:")]
    assert engine.endswith("of 76.0 usable a GPU (assumed)")
    assert worker.endswith("of 76.0 usable a GPU")
    assert any("267.8k x 2 B / tensor_parallel 2" in line for line in lines)
    assert any(line.startswith("  fill: about") and line.endswith("(assumed)") for line in lines)


def test_students_of_one_shape_share_a_line() -> None:
    config = experiment()
    twins = {"a": config.students["kd"], "b": config.students["kd"]}
    config = config.model_copy(update={"students": twins})
    placement = plan_placement(config, teacher=planned(), students={"a": planned(), "b": planned()}, hardware=NODE)
    lines = render_placement(placement)
    assert sum("training worker, a; training worker, b" in line for line in lines) == 1


def test_the_plan_shows_every_phase() -> None:
    text = "\n".join(render_placement(place(Hardware("cpu", cpus=2, memory=HostMemory(64.0, 64.0)))))
    assert "memory of a machine, fill: " in text and "GiB of 60.8 usable (teacher engine " in text
    assert "memory of a machine, training of kd: " in text and "memory of a machine, answers of kd: " in text
    assert "CUDA" not in text and "process" in text
    assert "  teacher engines: 1 x 2 CPUs" in text
