"""A whole experiment in its order, with engines and worker groups that are fakes: what is asked, kept and tracked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import METRICS, FakeRun, experiment, fake_run

from configs import BudgetReached, ConfigError, DistillConfig, EngineError
from orchestration.comparison.report import Report
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.experiment import Experiment, Until, Written


def go(run: FakeRun, *, until: Until = "eval", written: DistillConfig | None = None) -> Report | None:
    config = run.config if written is None else written
    content = content_of(config, config_dir=run.root)
    return Experiment(Written(config, run.root, content), run.settings, run.journal, run.compute).run(until=until)


def test_a_run_asks_trains_and_compares(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None
    (teacher_pool, *others) = run.compute.pools
    # Seven prompts are asked once; the teacher's row takes a warm-up, the answers, and the scores.
    assert teacher_pool.called == ["check 2", "fill 7", "answer 2 write", "answer 2 write", "answer 2 score", "release"]
    assert run.compute.called == [
        "cluster", "cluster", "train kd", "cluster", "score 2", "student pool untouched", "student pool kd",
    ]  # fmt: skip
    assert [pool.called[1:] for pool in others] == [["answer 2 write", "answer 2 write"]] * 2
    assert [(row.name, row.role) for row in report.models] == [
        ("teacher", "teacher"), ("untouched", "untouched"), ("kd", "student"),
    ]  # fmt: skip
    # The live teacher is what the cache keeps of it.
    assert report.models[0].forward_kl < 0.01
    assert report.models[2].forward_kl == METRICS.forward_kl
    assert report.prompts == ("test 0", "test 1")
    assert [title for title, _ in report.times] == [
        "teacher", "prompts", "students", "teacher engine", "fill", "teacher answers", "train kd",
        "held-out scoring", "student answers",
    ]  # fmt: skip
    kept = json.loads((run.settings.directory / "report.json").read_text())
    assert [row["name"] for row in kept["models"]] == ["teacher", "untouched", "kd"]


def test_the_tracker_hears_of_parent_children_and_ends(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    go(run)
    tracker = run.tracker
    assert [name for name, *_ in tracker.of("child")] == ["fill", "teacher", "kd", "untouched"]
    assert [name for name, *_ in tracker.of("finish")] == ["fill", "teacher", "untouched", "kd"]
    ((_, fill),) = tracker.of("final", "fill")
    assert fill["cache/hit_rate"] == 0.0 and fill["fill/teacher_tokens"] > 0 and fill["cache/bytes_per_token"] > 0
    assert tracker.of("artifact") == [("pipeline", "report.md"), ("pipeline", "config.yaml")]
    assert tracker.told[-1] == ("finish all", "FINISHED")
    # The default store is made only when the run can begin.
    assert tracker.told[:2] == [("usable",), ("start", "fake-run", tracker.of("start")[0][1])]


def test_a_second_run_asks_and_trains_nothing(tmp_path: Path) -> None:
    go(fake_run(tmp_path))
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None and len(report.models) == 3
    assert run.compute.called == []
    assert [pool.called for pool in run.compute.pools] == [["release"]]
    ((_, fill),) = run.tracker.of("final", "fill")
    assert fill["cache/hit_rate"] == 1.0
    assert [title for title, _ in report.times] == ["teacher", "prompts", "students", "fill", "train kd"]
    assert "nothing to ask: every row is in the cache" in run.said
    assert "reused: nothing that it depends on has changed" in run.said
    # Its curve can be compared in the new run as well.
    assert [(name, step) for _, name, _, step in run.tracker.of("point", "kd") if name == "dev/loss"] == [
        ("dev/loss", 0), ("dev/loss", 1), ("dev/loss", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("until", "called"), [("fill", ["cluster"]), ("train", ["cluster", "train kd"])])
def test_a_run_stops_where_it_is_told_to(until: Until, called: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    assert go(run, until=until) is None
    assert run.compute.called == called
    assert "fill 7" in run.compute.pools[0].called and "answer 2 write" not in run.compute.pools[0].called
    assert run.tracker.told[-1] == ("finish all", "FINISHED")
    assert not (run.settings.directory / "report.json").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (BudgetReached("spent"), "KILLED"), (EngineError("died"), "FAILED")],
)
def test_how_a_run_ends_is_tracked(error: BaseException, status: str, tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def end(job: Any) -> None:
        raise error

    run.compute.on_train = end
    with pytest.raises(type(error)):
        go(run)
    assert run.tracker.told[-1] == ("finish all", status)


def test_what_was_bought_before_a_stop_is_not_bought_again(tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def stop(job: Any) -> None:
        raise KeyboardInterrupt

    run.compute.on_train = stop
    with pytest.raises(KeyboardInterrupt):
        go(run)
    again = fake_run(tmp_path)
    assert go(again) is not None
    assert again.compute.pools[0].called == ["release"]
    assert "train kd" in again.compute.called


def test_a_budget_refuses_the_teachers_row(tmp_path: Path) -> None:
    go(fake_run(tmp_path), until="fill")
    run = fake_run(tmp_path, budgets={"max_teacher_tokens": 1})
    with pytest.raises(BudgetReached, match="the teacher's row of the comparison"):
        go(run)
    assert run.tracker.told[-1] == ("finish all", "KILLED")


def test_rows_that_are_set_aside_are_named(tmp_path: Path) -> None:
    rows = [{"prompt": "short"}, {"prompt": "long " * 20}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None and report.rejected_rows == 1
    (rejected,) = (run.settings.directory / "rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["row"] == 1
    assert "! 1 rows set aside in" in run.said and "the first: train row 1" in run.said


def test_data_that_change_on_the_way_stop_the_run_before_it_publishes(tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def change(job: Any) -> None:
        with (tmp_path / "test.jsonl").open("a") as rows:
            rows.write('{"prompt": "one more"}\n')

    run.compute.on_train = change
    with pytest.raises(
        ConfigError, match=r"^data\.test\.path: changed while the experiment was running: run it again$"
    ):
        go(run)
    assert not (run.settings.directory / "report.json").exists()
    assert run.tracker.told[-1] == ("finish all", "FAILED")


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    engine = config.runtime.teacher_engine.model_copy(update={"tensor_parallel": 4})
    run = FakeRun(
        tmp_path, config.model_copy(update={"runtime": config.runtime.model_copy(update={"teacher_engine": engine})})
    )
    with pytest.raises(ConfigError, match="tensor_parallel"):
        go(run)
    assert run.tracker.told == [] and not (tmp_path / "run_root" / "inits").exists()
