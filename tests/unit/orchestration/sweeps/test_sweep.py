"""A sweep over lanes that answer at once: filled once, resumed, one failure alone, the best compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sweep_builders import LAYERS, RATE, InstantLane, answer, swept

from configs import BudgetReached, DistillConfig, TrainingError
from orchestration.sweeps.lane import LaneJob
from orchestration.sweeps.lanes import Lanes
from orchestration.sweeps.summary import Summary
from orchestration.sweeps.sweep import run_sweep
from orchestration.sweeps.trials import Outcome

Respond = Callable[[LaneJob, DistillConfig], Outcome]


def good(job: LaneJob, config: DistillConfig) -> Outcome:
    if job.until == "fill":
        return Outcome("", {}, 0, 1.0, 0.0, 5000, "runs/fill")
    student = config.students["kd"]
    layers = student.init.keep_layers
    assert isinstance(layers, int)
    return answer(1e4 * abs(student.stages[0].learning_rate - 2e-4) + 0.1 * (3 - layers), parameters=100 * layers)


class Sweeps:
    """Runs a sweep in one place, with lanes that are remembered."""

    def __init__(self, place: Path, terminal: pytest.CaptureFixture[str]) -> None:
        self._terminal = terminal
        self._config = swept(run_root=place)
        self._place = place
        self.said = ""

    def run(self, respond: Respond, *, lanes: int = 1) -> tuple[Summary, list[LaneJob]]:
        made: Any = tuple(InstantLane(respond) for _ in range(lanes))
        try:
            summary = run_sweep(self._config, config_dir=self._place, lanes_in=lambda _: nullcontext(Lanes(made)))
        finally:
            self.said = self._terminal.readouterr().out
        return summary, [job for each in made for job in each.jobs]


@pytest.fixture
def sweeps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Sweeps:
    return Sweeps(tmp_path, capfd)


def test_it_fills_once_tries_everything_and_compares_the_best(sweeps: Sweeps) -> None:
    summary, jobs = sweeps.run(good)
    assert [job.until for job in jobs] == ["fill", *["train"] * 6, "eval"]
    assert summary.fill_tokens == 5000 and summary.teacher_tokens == 0
    best = DistillConfig.model_validate_json(jobs[-1].config).students["kd"]
    assert best.stages[0].learning_rate == 2e-4 and best.init.keep_layers == 3
    assert summary.ranked[0][1].values == {RATE: 2e-4, LAYERS: 3}
    assert "The trials asked the teacher for 0 tokens" in sweeps.said


def test_side_by_side_every_trial_is_run_once(sweeps: Sweeps) -> None:
    summary, jobs = sweeps.run(good, lanes=3)
    assert sorted(trial.number for trial in summary.trials) == list(range(6))
    assert [job.until for job in jobs].count("train") == 6


def test_a_finished_trial_is_not_run_again(sweeps: Sweeps) -> None:
    class Killed(Exception):
        pass

    seen: list[str] = []

    def killed_at_the_fourth(job: LaneJob, config: DistillConfig) -> Outcome:
        seen.append(job.until)
        if seen.count("train") == 4:
            raise Killed
        return good(job, config)

    with pytest.raises(Killed):
        sweeps.run(killed_at_the_fourth)
    summary, jobs = sweeps.run(good)
    assert [job.until for job in jobs] == ["fill", *["train"] * 3, "eval"]
    assert "3 trials were finished before" in sweeps.said
    whole, _ = Sweeps(sweeps._place / "undisturbed", sweeps._terminal).run(good)
    assert [trial.values for trial in summary.trials] == [trial.values for trial in whole.trials]


def test_one_that_fails_fails_alone_and_is_tried_again_by_the_next_start(sweeps: Sweeps) -> None:
    def picky(job: LaneJob, config: DistillConfig) -> Outcome:
        if job.until == "train" and config.students["kd"].init.keep_layers == 3:
            return Outcome.failed("out of memory", seconds=1.0)
        return good(job, config)

    summary, _ = sweeps.run(picky)
    assert sum(trial.failed for trial in summary.trials) == 3
    assert summary.ranked[0][1].values == {RATE: 2e-4, LAYERS: 2}
    assert "failed: out of memory" in sweeps.said
    again, jobs = sweeps.run(good)
    assert [job.until for job in jobs].count("train") == 3
    assert again.ranked[0][1].values == {RATE: 2e-4, LAYERS: 3}


def test_a_finished_sweep_asks_nobody_but_for_the_table_of_the_best(sweeps: Sweeps) -> None:
    sweeps.run(good)
    _, jobs = sweeps.run(good)
    assert [job.until for job in jobs] == ["eval"]


def test_a_sweep_of_failures_ends_with_an_error(sweeps: Sweeps) -> None:
    def bad(job: LaneJob, config: DistillConfig) -> Outcome:
        return good(job, config) if job.until == "fill" else Outcome.failed("no", seconds=1.0)

    with pytest.raises(TrainingError, match="no trial was finished"):
        sweeps.run(bad)


def test_a_fill_that_fails_ends_it_before_any_trial(sweeps: Sweeps) -> None:
    with pytest.raises(TrainingError, match="no teacher"):
        sweeps.run(lambda job, config: Outcome.failed("no teacher", seconds=1.0))


def test_what_it_found_is_kept_as_data_and_as_a_page(sweeps: Sweeps, tmp_path: Path) -> None:
    sweeps.run(good)
    (directory,) = tmp_path.glob("small-sweep-*")
    kept = json.loads((directory / "sweep.json").read_text())
    assert kept["schema"] == "stillroom/sweep/1" and len(kept["trials"]) == 6
    assert "a sweep of 6 trials" in (directory / "sweep.md").read_text()


@pytest.mark.parametrize("name", ["small", "small-sweep"])
def test_its_directory_says_once_that_it_is_a_sweep(name: str, tmp_path: Path) -> None:
    lanes: Any = (InstantLane(good),)
    config = swept(run_root=tmp_path).model_copy(update={"name": name})
    run_sweep(config, config_dir=tmp_path, lanes_in=lambda _: nullcontext(Lanes(lanes)))
    (directory,) = (path.parent for path in tmp_path.glob("*/sweep.md"))
    assert re.fullmatch("small-sweep-[0-9a-f]{10}", directory.name)


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (BudgetReached("no"), "KILLED"), (TrainingError("no"), "FAILED")],
)
def test_mlflow_tells_a_sweep_that_was_stopped_from_one_that_failed(
    error: BaseException, status: str, sweeps: Sweeps, tmp_path: Path
) -> None:
    def ended(job: LaneJob, config: DistillConfig) -> Outcome:
        if job.until == "train":
            raise error
        return good(job, config)

    with pytest.raises(type(error)):
        sweeps.run(ended)
    (store,) = tmp_path.glob("*.db")
    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(experiments)] == [status]
