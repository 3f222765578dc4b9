"""Runs are found by directory, name or the beginning of a name; what is not there is named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from result_builders import run_results

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
def root(tmp_path: Path) -> Path:
    for name in ("tiny-0a1b", "quickstart-1111", "quickstart-2222"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    return tmp_path / "runs"


def test_by_directory_by_name_and_by_its_beginning(root: Path) -> None:
    assert find_run(str(root / "tiny-0a1b"), run_root=Path("nowhere")) == root / "tiny-0a1b"
    assert find_run("tiny-0a1b", run_root=root) == root / "tiny-0a1b"
    assert find_run("tiny", run_root=root) == root / "tiny-0a1b"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("quickstart", "2 runs in .* begin so .quickstart-1111, quickstart-2222.: name one of them"),
        ("nothing", "nothing: there is no run directory of this name, neither here nor in"),
        ("../tin", "there is no run directory of this name"),
        ("tin", "there is no run directory of this name"),
    ],
)
def test_what_is_not_there_is_named(root: Path, named: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_run(named, run_root=root)


def test_runs_of_one_experiment_are_told_apart_and_one_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    first = kept(tmp_path / "quickstart-1", run_results())
    second = kept(tmp_path / "quickstart-2", run_results())
    assert list(open_runs([str(first), "quickstart-1"], run_root=tmp_path)) == ["quickstart"]
    assert len(open_runs([str(first), str(second)], run_root=tmp_path)) == 2


def test_a_run_that_is_not_finished_or_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "begun-1").mkdir()
    with pytest.raises(ConfigError, match="begun-1 holds no finished comparison"):
        open_runs(["begun"], run_root=tmp_path)
    old = kept(tmp_path / "old-1", run_results())
    document = json.loads((old / "report.json").read_text())
    (old / "report.json").write_text(json.dumps(document | {"schema": "stillroom/report/2"}))
    with pytest.raises(ConfigError, match="was written by another version") as refused:
        open_runs(["old"], run_root=tmp_path)
    assert refused.value.exit_code == 2
