"""The students of a run: each from the lesson of its own teacher, refused before any of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import KD, FakeRun, fake_run

from configs import DistillError
from orchestration.pipeline import train_students as module
from orchestration.pipeline.chain import Student
from orchestration.pipeline.links import stage_axis
from orchestration.pipeline.prepare_starts import prepare_starts
from orchestration.pipeline.train_students import train_students


def student(*stages: dict[str, Any], **named: Any) -> dict[str, Any]:
    return {"init": {"keep_layers": 1}, "stages": list(stages or (KD,)), **named}


def trained(run: FakeRun) -> list[Student]:
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    starts = prepare_starts(run.settings, run.journal, teacher=teacher, prompts=prompts)
    made = {name: start for name, start in starts.items() if start is not None}
    return train_students(made, **run.parts, lesson=run.lesson(teacher, prompts), prompts=prompts)


def test_each_student_goes_through_its_stages(tmp_path: Path) -> None:
    seqkd = KD | {"objective": "seqkd", "steps": 2}
    run = fake_run(tmp_path, students={"one": student(seqkd, KD), "two": student()})
    one, two = trained(run)
    assert run.compute.called == ["train seqkd", "train kd", "train kd"]
    assert [job.model_dir for job in run.compute.jobs] == [
        one.start.directory,
        one.links[0].output_dir,
        two.start.directory,
    ]
    assert (one.name, two.name, one.notes) == ("one", "two", ())
    tags = {name: tags for name, tags, _ in run.tracker.of("child")}
    assert tags["one"] == {
        "role": "student",
        "student_digest": one.digest,
        "reused": "false",
        "stages": "seqkd: steps 0 to 2; kd: steps 3 to 7",
    }
    datasets = {name: dataset for name, _, dataset in run.tracker.of("child")}
    assert datasets["two"][0] == "teacher-train"
    # The second stage begins behind the first, which had three points.
    steps = [step for _, name, _, step in run.tracker.of("point", "one") if name == "dev/loss"]
    assert steps == [0, 1, 2, 3, 4, 5]


def test_a_reused_student_says_so(tmp_path: Path) -> None:
    trained(fake_run(tmp_path))
    run = fake_run(tmp_path)
    trained(run)
    assert run.compute.called == []
    assert [tags["reused"] for _, tags, _ in run.tracker.of("child")] == ["true"]


def test_the_same_student_under_another_name_is_trained_once(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students={"one": student(), "two": student()})
    one, two = trained(run)
    assert one.digest == two.digest and run.compute.called == ["train kd"]


def test_a_stage_that_made_it_worse_is_said_and_noted(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    run.compute.losses = (1.0, 2.0)
    (kd,) = trained(run)
    (note,) = kd.notes
    assert note.startswith("students.kd.stages.0 (kd) made the student worse: dev/loss 1.0000 -> 2.0000 at step 1")
    assert f"! {note}" in run.said


def test_an_assistant_is_asked_once_for_all_that_it_teaches(tmp_path: Path) -> None:
    students = {"ta": student(), "a": student(teacher="ta"), "b": student(KD | {"steps": 5}, teacher="ta")}
    run = fake_run(tmp_path, students=students)
    ta, a, b = trained(run)
    assert run.compute.called == ["train kd", "cluster", "train kd", "train kd"]
    (_, pool) = run.compute.pools
    # Its own train and dev rows: the test split is the teacher's.
    assert pool.called == ["check 2", "fill 5", "release"]
    assert "ta now teaches; 5 rows are not in its cache." in run.said
    of_teacher, of_ta, _ = run.compute.jobs
    assert of_teacher.identity != of_ta.identity and of_ta.teacher == "ta"
    assert of_ta.train_view == run.settings.directory.resolve() / "views/ta/teacher-train.npz"
    # What the start is: the first layer of the teacher, for all of them.
    assert a.start.digest == b.start.digest == ta.start.digest and len({ta.digest, a.digest, b.digest}) == 3


def test_what_cannot_work_is_said_before_any_training(tmp_path: Path) -> None:
    # One response token more than a micro-batch holds.
    run = fake_run(
        tmp_path, students={"one": student(), "two": student()}, runtime={"training": {"micro_batch_tokens": 8}}
    )
    with pytest.raises(DistillError, match="micro_batch_tokens"):
        trained(run)
    assert run.compute.called == []


def test_an_on_policy_stage_with_much_in_the_tail_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minillm = {"objective": "minillm", "dtype": "float32", "rollout": {"count": 1, "prompts": 4, "max_new_tokens": 6}}

    def stop(job: Any) -> None:
        raise KeyboardInterrupt

    for tail, warned in ((0.25, True), (0.05, False)):
        run = fake_run(tmp_path, students={"one": student(KD, minillm)})
        run.compute.on_train = stop
        monkeypatch.setattr(module, "mean_tail_mass", lambda *_, tail=tail, **__: tail)
        with pytest.raises(KeyboardInterrupt):
            trained(run)
        said = "students.one: teacher.top_k=4 leaves 25% of the teacher's probability outside the kept tokens, where minillm"
        assert (said in run.said) == warned


def test_the_stages_of_a_student_follow_one_another_in_its_curve() -> None:
    assert stage_axis([4, 0, 2]) == [range(5), range(5, 6), range(6, 9)]
