"""Runs are found by directory, name or the beginning of a name; what is not there is named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from results_builders import run_results

from configs import ConfigError
from evaluation.results import RunResults
from orchestration.comparison.report import Report, write_report
from orchestration.comparison.runs import find_run, open_runs
from orchestration.outputs.foundations import RestsOn


def kept(directory: Path, results: RunResults) -> Path:
    directory.mkdir(parents=True)
    write_report(Report(results, RestsOn({}, {}, {}, (), ()), {}), directory)
    return directory


@pytest.fixture
def run_root(tmp_path: Path) -> Path:
    for name in ("quick-0123", "quick-4567", "long-89ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")
    (tmp_path / "unfinished-0000").mkdir()
    return tmp_path


def test_a_run_is_found_by_its_path_its_name_or_the_beginning_of_its_name(run_root: Path) -> None:
    assert find_run(str(run_root / "quick-0123"), run_root=run_root / "elsewhere") == run_root / "quick-0123"
    assert find_run("quick-0123", run_root=run_root) == run_root / "quick-0123"
    assert find_run("long", run_root=run_root) == run_root / "long-89ab"


@pytest.mark.parametrize("run", ["missing", "unfinished", "../x", "l*", "[lq]ong", ""])
def test_a_run_that_is_not_there_is_named(run_root: Path, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    monkeypatch.chdir(run_root)
    place = run_root / "empty" if run == "" else run_root
    if run == "":
        run = "nothing"
    with pytest.raises(ConfigError, match="is neither a run directory nor the name of one"):
        find_run(run, run_root=place)


def test_a_beginning_of_several_names_is_refused(run_root: Path) -> None:
    with pytest.raises(ConfigError, match="several runs are called so \\(quick-0123, quick-4567\\)"):
        find_run("quick", run_root=run_root)


def test_runs_of_one_experiment_are_told_apart_and_one_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    first = kept(tmp_path / "quickstart-1", run_results())
    second = kept(tmp_path / "quickstart-2", run_results())
    assert list(open_runs([str(first), "quickstart-1"], run_root=tmp_path)) == ["quickstart"]
    assert len(open_runs([str(first), str(second)], run_root=tmp_path)) == 2


def test_a_run_that_is_not_finished_or_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "begun-1").mkdir()
    with pytest.raises(ConfigError, match="begun-1 holds no finished comparison"):
        open_runs(["begun-1"], run_root=tmp_path)
    old = kept(tmp_path / "old-1", run_results())
    document = json.loads((old / "report.json").read_text())
    (old / "report.json").write_text(json.dumps(document | {"schema": "stillroom/report/2"}))
    with pytest.raises(ConfigError, match="was written by another version") as refused:
        open_runs(["old"], run_root=tmp_path)
    assert refused.value.exit_code == 2
