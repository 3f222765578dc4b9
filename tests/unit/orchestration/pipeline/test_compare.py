"""The comparison: what every model is measured on, who is measured in which dtype, and that nobody is measured twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import CLOSENESS, FakeRun, fake_run, model_in, student, widened

from configs import BudgetReached, EngineError, ModelError, TrainingError
from evaluation.closeness import measured
from evaluation.results import ModelResults
from orchestration.comparison import bench as benches
from orchestration.comparison.numbers import metrics_of, tokens_per_s
from orchestration.pipeline.candidates import student_candidates
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compare import (
    Compared,
    compare_students,
    compare_teacher,
    open_bench,
    scoring_job,
    ways_of,
)
from orchestration.pipeline.lessons import Lesson


def opened(run: FakeRun, *, shown_more: bool = False) -> tuple[Lesson, benches.Bench]:
    teacher = run.teacher()
    prompts = widened(run.prompts(teacher)) if shown_more else run.prompts(teacher)
    lesson = run.lesson(teacher, prompts)
    return lesson, open_bench(run.config, lesson=lesson)


def comparison(run: FakeRun, *students: Student) -> Compared:
    lesson, bench = opened(run)
    compared = Compared(run.settings.artifacts)
    ways = ways_of(run.settings, bench=bench)
    compare_students(students, **run.parts, lesson=lesson, ways=ways, compared=compared)
    return compared


def compared(run: FakeRun, *students: Student) -> list[ModelResults]:
    return comparison(run, *students).rows


def kl(row: ModelResults) -> float:
    assert row.closeness is not None
    return measured(row.closeness)["forward_kl"].value


def measured_teacher(run: FakeRun, *, shown_more: bool = False) -> ModelResults:
    teacher = run.teacher()
    _, bench = opened(run, shown_more=shown_more)
    compared = Compared(run.settings.artifacts)
    asked = run.asked(teacher, run.prompts(teacher))
    compare_teacher(asked, ways=ways_of(run.settings, bench=bench), compared=compared, **run.parts)
    return compared.rows[0]


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return model_in(tmp_path, seed=1), model_in(tmp_path, seed=2)


def test_the_bench_is_what_the_teacher_answered_of_the_test_split(tmp_path: Path) -> None:
    rows = ["test 0", "test 1", "test 0"]
    (tmp_path / "test.jsonl").write_text("".join(f'{{"prompt": "{row}"}}\n' for row in rows))
    run = fake_run(tmp_path, evaluation={"max_new_tokens": 5})
    lesson, bench = opened(run)
    # A prompt that stands twice in the data is asked once.
    assert len(bench.requests) == len(bench.view) == 2
    assert bench.view is lesson.views["teacher-test"]
    assert {request.max_new_tokens for request in bench.requests} == {5}
    assert (bench.compared_tokens, bench.top_k) == (5, 4)
    assert [record.token_ids[: record.prompt_len].tolist() for record in bench.references()] == [
        list(request.prompt_ids) for request in bench.requests
    ]


def test_answers_are_compared_as_far_as_both_were_allowed_to_go(tmp_path: Path) -> None:
    _, bench = opened(fake_run(tmp_path, evaluation={"max_new_tokens": 20}))
    assert bench.compared_tokens == 6 and bench.requests[0].max_new_tokens == 20


def test_untouched_and_trained_are_measured_and_tracked(tmp_path: Path, models: tuple[Path, Path]) -> None:
    run = fake_run(tmp_path)
    rows = compared(run, student("kd", *models, "float32"))
    found = measured(CLOSENESS)["forward_kl"].value
    assert [(row.name, row.role, row.method, row.start, kl(row)) for row in rows] == [
        ("untouched", "untouched", "", None, found), ("kd", "student", "kd", "untouched", found),
    ]  # fmt: skip
    assert run.compute.called == ["cluster", "score 2", "cluster", "student pool untouched", "student pool kd"]
    assert [pool.called[0] for pool in run.compute.pools[-2:]] == [f"load {models[0].name}", f"load {models[1].name}"]
    assert [tokens_per_s(row) for row in rows] == [None, None], "nobody examined how fast they are"
    assert [name for name, *_ in run.tracker.of("child")] == ["untouched"]
    assert [name for name, _ in run.tracker.of("finish")] == ["untouched", "kd"]
    assert dict(run.tracker.of("final"))["kd"] == metrics_of(rows[1])
    assert "of the teacher's answers" in run.said and "2 models: answers" in run.said


def test_nobody_is_measured_twice(tmp_path: Path, models: tuple[Path, Path]) -> None:
    one = compared(fake_run(tmp_path), student("kd", *models, "float32"))
    run = fake_run(tmp_path)
    assert repr(compared(run, student("kd", *models, "float32"))) == repr(one)
    assert run.compute.called == [] and "student answers" not in run.said
    assert [name for name, _ in run.tracker.of("finish")] == ["untouched", "kd"]


def test_what_is_scored_is_what_is_served(tmp_path: Path, models: tuple[Path, Path]) -> None:
    run = fake_run(tmp_path)
    lesson, _ = opened(run)
    wanted, _ = student_candidates([student("a", *models, "bfloat16", "float32")], config=run.config)
    for each in wanted:
        job = scoring_job(each, lesson=lesson, settings=run.settings)
        assert (job.dtype, job.model_dir) == (each.identity.dtype, each.directory)
        assert (job.identity, job.view) == (lesson.teacher.identity, lesson.paths["teacher-test"])


def test_the_live_teacher_agrees_with_its_cached_answers(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    row = measured_teacher(run)
    assert row.closeness is not None
    assert kl(row) < 0.01 and measured(row.closeness)["top1_agreement"].value == 1.0
    assert f"noise floor {kl(row):.4f} nats" in run.said
    assert run.compute.called == ["cluster"]
    assert run.tracker.of("child") == [("teacher", {"role": "teacher"}, None)]
    assert run.tracker.of("final") == [("teacher", metrics_of(row))]
    again = fake_run(tmp_path)
    assert repr(measured_teacher(again)) == repr(row)
    assert again.compute.called == [] and again.tracker.of("final") == [("teacher", metrics_of(row))]


def test_a_teacher_that_was_shown_more_answers_and_is_scored_behind_that(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    """The fake engine believes by prompt: scored behind what students see, it would differ from its own answers."""
    run = fake_run(tmp_path)
    lesson, bench = opened(run, shown_more=True)
    assert [each.prompt_ids[3:] for each in bench.asked] == [each.prompt_ids for each in bench.requests]
    learner = student_candidates([student("a", *models, "float32")], config=run.config)[0][-1]
    assert bench.requests_of(learner) == bench.requests
    assert scoring_job(learner, lesson=lesson, settings=run.settings).view.suffix == ".narrowed"
    told, read = bench.as_told(), bench.references()
    assert [record.prompt_len - 3 for record in told] == [record.prompt_len for record in read]
    row = measured_teacher(run, shown_more=True)
    assert kl(row) < 0.01


def test_the_teachers_row_waits_for_a_budget(tmp_path: Path) -> None:
    run = fake_run(tmp_path, budgets={"max_teacher_tokens": 10})
    with pytest.raises(BudgetReached, match="the row teacher of the comparison may take"):
        measured_teacher(run)
    assert run.compute.called == []


def test_a_model_that_was_measured_before_a_stop_is_not_measured_again(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    made = run.compute.student_pool

    def stopping(files: Any, identity: Any) -> Any:
        if files.label == "kd":
            raise KeyboardInterrupt
        return made(files, identity)

    monkeypatch.setattr(run.compute, "student_pool", stopping)
    with pytest.raises(KeyboardInterrupt):
        compared(run, student("kd", *models, "float32"))
    again = fake_run(tmp_path)
    compared(again, student("kd", *models, "float32"))
    assert again.compute.called == ["cluster", "student pool kd"], "scores that were found are kept too"


def test_a_student_that_cannot_be_scored_or_served_costs_the_others_nothing(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    run.compute.unscorable[models[1].name] = ModelError("has fewer tokens than the teacher")
    made = run.compute.student_pool

    def failing(files: Any, identity: Any) -> Any:
        if files.label == "kd":
            raise EngineError("the engine does not come up")
        return made(files, identity)

    monkeypatch.setattr(run.compute, "student_pool", failing)
    untouched, kd = compared(run, student("kd", *models, "float32"))
    assert untouched.failures == () and len(untouched.answers) == 2 and untouched.closeness is not None
    assert kd.failures == (
        "held-out scoring: has fewer tokens than the teacher", "cannot be served: the engine does not come up",
    )  # fmt: skip
    assert (kd.closeness, kd.answers, kd.serving) == (None, (), None)
    assert dict(run.tracker.of("final"))["kd"] == {"eval/parameters": float(kd.parameters)}
    # What was found stays; only what is missing is tried again.
    again = fake_run(tmp_path)
    untouched, kd = compared(again, student("kd", *models, "float32"))
    assert kd.failures == () and kd.closeness is not None
    assert again.compute.called == ["cluster", "score 1", "cluster", "student pool kd"]


def test_a_student_whose_files_are_gone_is_named(tmp_path: Path, models: tuple[Path, Path]) -> None:
    run = fake_run(tmp_path)
    lost = model_in(tmp_path, seed=3)
    kd, other = student("kd", *models, "float32"), student("lost", models[0], lost, "float32")
    (lost / "config.json").unlink()
    found = comparison(run, kd, other)
    assert [row.name for row in found.rows] == ["untouched", "kd"]
    assert len(found.failures) == 1 and found.failures[0].startswith("lost: ")


def test_scoring_that_dies_leaves_the_answers(tmp_path: Path, models: tuple[Path, Path]) -> None:
    run = fake_run(tmp_path)

    def die() -> None:
        raise TrainingError("held-out scoring was killed")

    run.compute.on_score = die
    rows = compared(run, student("kd", *models, "float32"))
    assert [row.failures for row in rows] == [("held-out scoring: held-out scoring was killed",)] * 2
    assert all(len(row.answers) == 2 and row.closeness is not None for row in rows)


def test_where_everything_is_kept_is_known(tmp_path: Path, models: tuple[Path, Path]) -> None:
    found = comparison(fake_run(tmp_path), student("kd", *models, "float32"))
    assert sorted(found.evidence.values()) == [
        "what answers found of kd", "what answers found of untouched",
        "what held-out scoring found of kd", "what held-out scoring found of untouched",
    ]  # fmt: skip
    assert all(found.artifacts.holds_evaluation(digest) for digest in found.evidence)
