"""`distill compare`: what it prints and writes, and what costs one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_builders import run_results

from orchestration.commands.main import main
from orchestration.comparison.report import Report, write_report
from orchestration.outputs.foundations import RestsOn


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "quickstart-0123456789"
    directory.mkdir(parents=True)
    write_report(Report(run_results(), RestsOn({}, {}, {}, (), ()), {}), directory)
    return directory


def test_a_run_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "quickstart", "--run-root", str(run.parent), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "test prompts: forward_kl (lower is better)" in shown
    assert "kd against its teacher (teacher): " in shown
    assert shown.splitlines()[-1].startswith("Written: ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.md", "compare.json"}


def test_a_run_that_is_not_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run), "gone", "--run-root", str(run.parent)]) == 2
    assert capsys.readouterr().err.startswith("distill: gone: is neither a run directory nor the name of one in")


def test_a_place_that_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run), "--out", str(run / "report.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
