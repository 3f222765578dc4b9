"""The command line: which benchmarks there are, some of them, and rows for a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_benchmarks import NOISE

from benchmarks import __main__ as command
from benchmarks.running import Benchmark, found_benchmarks

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The benchmarks are those of the tests."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names, environment = ("noisy", "raising"), {"PYTHONPATH": str(SUPPORT)}
    found = {name: Benchmark(name, "toy_benchmarks", f"bench_{name}", environment=environment) for name in names}
    monkeypatch.setattr(command, "found_benchmarks", lambda: found)


@pytest.mark.usefixtures("toys")
def test_the_named_ones_run_and_a_program_can_read_their_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["noisy", "--json", str(tmp_path / "rows.json")]) == 0
    printed = capfd.readouterr().out
    assert "raising" not in printed and NOISE not in printed
    assert printed.splitlines()[-1] == "targets: 1 met, 1 missed"
    kept = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert kept["schema"] == "stillroom/benchmarks/1" and "Python" in kept["machine"]
    [(name, rows)] = kept["benchmarks"].items()
    assert name == "noisy" and rows["remarks"] == ["a remark"] and rows["failures"] == []
    speed, memory, plain = rows["measurements"]
    assert (speed["value"], speed["met"], speed["peers"]) == (2.0, True, {"the other": 1.0})
    assert (memory["met"], plain["met"]) == (False, None)


@pytest.mark.usefixtures("toys")
def test_the_exit_status_tells_of_a_failure_and_not_of_a_missed_target() -> None:
    assert command.main(["noisy"]) == 0
    assert command.main([]) == 1


def test_a_name_that_is_unknown_is_told_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["cache_raeds"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "no such benchmark: cache_raeds" in told and "cache_reads" in told


def test_the_list_names_all_and_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(found_benchmarks())
