"""How every stage is run: claimed, prepared, shown, run if something is left to do, kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pipeline_builders import FakeRun, fake_run

from configs import BudgetReached, ConfigError
from orchestration.energy.readings import Reading
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.stage import ArtifactClaim, Line, Stage, run_stage


@dataclass
class Noted(Stage[str, str, str]):
    """Notes what is done with it."""

    work: str | None = "work"
    shown: bool = False
    claimed: bool = False
    error: BaseException | None = None
    done: list[str] = field(default_factory=list)

    def claim(self) -> ArtifactClaim | None:
        return ArtifactClaim("d" * 64, "the thing") if self.claimed else None

    def prepare(self) -> str | None:
        self.done.append("prepare")
        return self.work

    def line(self) -> Line:
        return Line("noted", total=2, unit="things", always_shown=self.shown)

    def run(self, work: str, progress: StageProgress) -> str:
        self.done.append(f"run {work}")
        assert progress.total == 2
        if self.error is not None:
            raise self.error
        return f"made of {work}"

    def keep(self, made: str | None) -> str:
        self.done.append(f"keep {made}")
        return f"kept {made}"

    def summary(self, made: str | None, kept: str) -> str:
        return f"all is {kept}"


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return fake_run(tmp_path)


def result(stage: Noted, run: FakeRun) -> str:
    return run_stage(stage, settings=run.settings, journal=run.journal)


def test_what_is_left_is_run_and_kept(run: FakeRun) -> None:
    stage = Noted()
    assert result(stage, run) == "kept made of work"
    assert stage.done == ["prepare", "run work", "keep made of work"]
    assert "all is kept made of work" in run.said
    assert [title for title, _ in run.journal.console.times] == ["noted"]
    assert run.tracker.told == [("flush",)]


@pytest.mark.parametrize("shown", [True, False])
def test_nothing_is_run_when_nothing_is_left(shown: bool, run: FakeRun) -> None:
    stage = Noted(work=None, shown=shown)
    assert result(stage, run) == "kept None"
    assert stage.done == ["prepare", "keep None"]
    assert ("all is kept None" in run.said) == shown
    assert len(run.journal.console.times) == shown


def test_what_fails_is_not_kept(run: FakeRun) -> None:
    stage = Noted(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        result(stage, run)
    assert stage.done == ["prepare", "run work"]
    assert run.journal.console.times == []


def test_the_claim_is_held_from_before_it_is_prepared_until_it_is_kept(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Noted(claimed=True)

    @contextmanager
    def claim(artifacts: Artifacts, digest: str, *, what: str) -> Iterator[None]:
        stage.done.append(f"claim {digest[:2]}, {what}")
        yield
        stage.done.append("free")

    monkeypatch.setattr(Artifacts, "claim", claim)
    result(stage, run)
    assert stage.done == ["claim dd, the thing", "prepare", "run work", "keep made of work", "free"]


def test_a_claim_is_free_after_an_error(run: FakeRun) -> None:
    with pytest.raises(ValueError, match="no"):
        result(Noted(claimed=True, error=ValueError("no")), run)
    assert result(Noted(claimed=True), run) == "kept made of work"
    assert "waiting for it" not in run.said


@dataclass
class Told:
    """A meter that says what it is told."""

    joules: list[float]
    source: str = "a test"

    def read(self) -> Reading:
        return Reading(self.joules.pop(0) if len(self.joules) > 1 else self.joules[0], 0.0)


def limited(root: Path, *joules: float) -> FakeRun:
    run = fake_run(root, budgets={"max_kwh": 1.0})
    run.journal.console.costs.meter = Told(list(joules))
    return run


def test_a_stage_does_not_begin_without_energy_and_nothing_that_is_done_is_refused(tmp_path: Path) -> None:
    run = limited(tmp_path, 4e6)
    with pytest.raises(BudgetReached, match=r"1\.11 kWh are spent of budgets\.max_kwh=1 and noted is not done"):
        result(Noted(), run)
    assert result(Noted(work=None, shown=True), run) == "kept None"


def test_a_stage_ends_while_it_runs_when_energy_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.outputs.console.WATCH_EVERY_S", 0.0)

    @dataclass
    class Long(Noted):
        def run(self, work: str, progress: StageProgress) -> str:
            for step in range(9):
                self.done.append(f"step {step}")
                progress.update(step)
            return ""

    stage = Long()
    with pytest.raises(BudgetReached, match="noted is not done"):
        result(stage, limited(tmp_path, 0.0, 0.0, 1e6, 2e6, 3e6, 4e6))
    assert stage.done[-1].startswith("step ") and "step 8" not in stage.done


def test_a_limit_that_nobody_can_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budgets\.max_kwh=1: nothing here measures energy: remove it"):
        result(Noted(), limited(tmp_path, math.nan))
