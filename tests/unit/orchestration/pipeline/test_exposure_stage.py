"""Exposure as a stage of the comparison: paid for, kept, and left out with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_builders import FakeRun, fake_run, model_in

from configs import ModelError, TrainingError
from configs.stages import StageConfig
from evaluation.results import ModelResults
from orchestration.inputs.models import open_model
from orchestration.pipeline import exposure_stage
from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.compare import Compared, compare_students, open_bench, ways_of
from orchestration.pipeline.exposure_stage import exposure_of_run
from orchestration.pipeline.starts import Start

KD = StageConfig.model_validate({"objective": "kd", "steps": 1, "dtype": "float32"})


@pytest.fixture
def student(tmp_path: Path) -> Student:
    start, end = model_in(tmp_path, seed=1), model_in(tmp_path, seed=2)
    shape = open_model(start, label="kd").shape
    return Student("kd", Start("start", start, shape, "a start"), (Link(KD, "kd", start, end, end, ""),))


def asking_run(root: Path, *, budgets: dict[str, int] | None = None, **evaluation: int) -> FakeRun:
    return fake_run(root, budgets=budgets or {}, evaluation={"exposure": True, **evaluation})


def compared(run: FakeRun, student: Student, *, quantization: str | None = None) -> list[ModelResults]:
    """The rows of the untouched and the trained student, by a teacher that may be served quantised."""
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    lesson = run.lesson(teacher, prompts)
    bench = open_bench(run.config, lesson=lesson)
    teacher = replace(teacher, identity=replace(teacher.identity, quantization=quantization))
    ways = (*ways_of(run.settings, bench=bench), *exposure_of_run(run.settings, bench=bench, teacher=teacher))
    found = Compared(run.settings.artifacts)
    compare_students([student], **run.parts, lesson=replace(lesson, teacher=teacher), ways=ways, compared=found)
    return found.rows


def tokens_read(run: FakeRun, rows: list[ModelResults]) -> int:
    """Prompt and answer, of every student and as often of the teacher."""
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    lesson = run.lesson(teacher, prompts)
    bench = open_bench(run.config, lesson=lesson)
    asked = sum(len(request.prompt_ids) for request in bench.requests)
    theirs = sum(len(record.token_ids) for record in bench.references())
    return sum(asked + sum(row.answer_tokens) + theirs for row in rows)


def test_every_student_is_read_once_and_the_teacher_tokens_count(tmp_path: Path, student: Student) -> None:
    run = asking_run(tmp_path)
    rows = compared(run, student)
    assert run.compute.called[-2:] == ["cluster", "exposure 2"]
    for row in rows:
        assert row.exposure is not None and row.failures == ()
        assert row.exposure.lengths == row.answer_tokens
    spent = run.journal.ledger.counts().evaluation
    assert spent == tokens_read(run, rows) > 0
    assert "2 models after their own tokens and after the teacher's" in run.said
    assert "eval/test/own_reverse_kl" in dict(run.tracker.of("final"))["kd"]

    again = asking_run(tmp_path)
    assert repr(compared(again, student)) == repr(rows)
    assert again.compute.called == [] and again.journal.ledger.counts().evaluation == spent


def test_without_room_in_the_budget_it_is_left_out_and_the_rest_stands(tmp_path: Path, student: Student) -> None:
    run = asking_run(tmp_path, budgets={"max_teacher_tokens": 10})
    rows = compared(run, student)
    assert "exposure 2" not in run.compute.called and run.journal.ledger.counts().evaluation == 0
    for row in rows:
        assert row.exposure is None and len(row.answers) == 2 and row.closeness is not None
        (line,) = row.failures
        assert line.startswith("exposure: left out, exposure may take ") and "max_teacher_tokens=10" in line
    raised = asking_run(tmp_path)
    assert all(row.exposure is not None and row.failures == () for row in compared(raised, student))
    assert raised.compute.called == ["cluster", "exposure 2"]


def test_a_teacher_that_one_device_does_not_hold_is_not_loaded(
    tmp_path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_stage, "LARGEST_TEACHER", 1000)
    run = asking_run(tmp_path)
    (line,) = compared(run, student)[1].failures
    assert "parameters and 1,000 is the most that one device reads" in line
    assert "exposure 2" not in run.compute.called


def test_a_quantised_teacher_is_not_what_a_forward_pass_loads(tmp_path: Path, student: Student) -> None:
    run = asking_run(tmp_path)
    rows = compared(run, student, quantization="fp8")
    assert rows[0].failures == (
        "exposure: left out, its teacher is served quantised (fp8), which a plain forward pass is not",
    )
    assert "exposure 2" not in run.compute.called


def test_who_cannot_be_read_is_named_and_costs_nothing(tmp_path: Path, student: Student) -> None:
    run = asking_run(tmp_path)
    compared(run, student)
    other = asking_run(tmp_path, max_new_tokens=3)
    other.compute.unscorable[student.directory.name] = ModelError("token 300 was written")
    before = other.journal.ledger.counts().evaluation
    untouched, kd = compared(other, student)
    assert untouched.exposure is not None and kd.exposure is None
    assert kd.failures == ("exposure: token 300 was written",)
    assert other.journal.ledger.counts().evaluation > before


def test_a_process_that_dies_is_named_in_every_row(
    tmp_path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asking_run(tmp_path)

    def die(job: object) -> None:
        raise TrainingError("exposure scoring was killed")

    monkeypatch.setattr(run.compute, "score_exposure", die)
    assert [row.failures for row in compared(run, student)] == [("exposure: exposure scoring was killed",)] * 2
    assert run.journal.ledger.counts().evaluation == 0


@pytest.mark.parametrize("evaluation", [{}, {"exposure": False}])
def test_who_does_not_ask_for_it_pays_nothing(tmp_path: Path, student: Student, evaluation: dict[str, bool]) -> None:
    run = fake_run(tmp_path, evaluation=evaluation)
    assert all(row.exposure is None and row.failures == () for row in compared(run, student))
    assert "exposure 2" not in run.compute.called and run.journal.ledger.counts().evaluation == 0
