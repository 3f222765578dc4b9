"""What a run found, put together: where it comes from and what it rests on."""

from __future__ import annotations

from pathlib import Path

from pipeline_builders import fake_run, go


def test_results_say_where_they_come_from(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None
    results = report.results
    assert results.settings["teacher.top_k"] == "4" and results.settings["students.kd.stages.0.objective"] == "kd"
    origin = results.provenance
    assert (origin.config_digest, origin.teacher_identity) == (run.config.digest(), run.teacher().identity.digest())
    assert set(origin.data) == {"data.train.path", "data.dev.path", "data.test.path"}
    assert set(origin.versions) >= {"vllm", "torch", "transformers"}
    assert results.cost.teacher_tokens == run.journal.ledger.counts().tokens


def test_a_report_holds_every_model_and_names_what_it_rests_on(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None
    results = report.results
    assert [row.name for row in results.models] == ["teacher", "untouched", "kd"]
    assert [row.training is not None for row in results.models] == [False, False, True]
    assert results.prompts == ("test 0", "test 1") and len(results.references) == len(results.reference_tokens) == 2
    (student,) = report.rests_on.students
    assert run.settings.artifacts.student_dir(student).samefile(run.compute.jobs[0].output_dir)
    assert list(report.rests_on.models) == ["teacher.model"]
