from __future__ import annotations

import io
from pathlib import Path

import pytest
from results_builders import finished_run, with_holes

from configs import ConfigError
from evaluation.side_effects.findings import Audit, Finding
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval
from orchestration.commands import report as command
from orchestration.commands.report import report_runs
from orchestration.comparison.audits import write_audit

AUC = Estimate(0.9, Interval(0.8, 0.95, "bca", 0.0), 80)
LEAK = Finding("privacy", "membership: loss", "kd", "kd", AUC, None, None, AUC, "fraction", "50 % is a guess", None)


@pytest.fixture
def run_root(tmp_path: Path) -> Path:
    for name in ("quick-0123", "quick-4567", "long-89ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")
    (tmp_path / "unfinished-0000").mkdir()
    return tmp_path


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_holes(finished_run(prompts=2))
    monkeypatch.setattr(command, "read_results", lambda directory: run)


@pytest.mark.usefixtures("results")
def test_the_report_of_one_run_lies_in_its_directory_and_is_said(run_root: Path) -> None:
    stream = io.StringIO()
    report_runs(["long"], run_root=run_root, out=None, stream=stream)
    assert (run_root / "long-89ab" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (run_root / "long-89ab" / "report.md").is_file()
    assert "report.html" in stream.getvalue().replace("\n", "")


@pytest.mark.usefixtures("results")
def test_it_shows_what_audits_found_of_each_run(run_root: Path) -> None:
    write_audit(Audit("privacy", {}, (LEAK,), ()), run_root / "long-89ab")
    report_runs(["quick-0123", "long"], run_root=run_root, out=run_root / "both", stream=io.StringIO())
    page = (run_root / "both" / "report.md").read_text().replace("\\", "")
    assert "kd, membership: loss: 90.0 %" in page
    assert "privacy: was not looked at" in page.partition("kd, membership")[0]


@pytest.mark.usefixtures("results")
def test_the_report_of_several_runs_needs_a_place(run_root: Path) -> None:
    with pytest.raises(ConfigError, match="--out"):
        report_runs(["long", "quick-0123"], run_root=run_root, out=None, stream=io.StringIO())
    report_runs(["long", "quick-0123"], run_root=run_root, out=run_root / "new" / "place", stream=io.StringIO())
    assert (run_root / "new" / "place" / "report.html").is_file()


@pytest.mark.usefixtures("results")
def test_a_place_that_cannot_be_written_is_named(run_root: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        report_runs(["long"], run_root=run_root, out=run_root / "long-89ab" / "report.json", stream=io.StringIO())


def test_a_run_that_is_not_finished_is_said(run_root: Path) -> None:
    with pytest.raises(ConfigError):
        report_runs(["unfinished-0000"], run_root=run_root, out=None, stream=io.StringIO())
