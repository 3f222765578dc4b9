"""Each benchmark has a process of its own, of which only the rows reach the table."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_benchmarks import NOISE

from benchmarks.measurement import Failure, Measurement
from benchmarks.running import Benchmark, found_benchmarks, run_all
from benchmarks.table import Table
from orchestration.outputs.interrupts import INTERRUPTS

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the logs of this test go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def toy(name: str, *arguments: str) -> Benchmark:
    environment = {"PYTHONPATH": str(SUPPORT)}
    return Benchmark(name, "toy_benchmarks", f"bench_{name}", arguments=arguments, environment=environment)


def run(*benchmarks: Benchmark, seconds: float | None = None) -> Table:
    table = Table(out=io.StringIO(), progress=io.StringIO())
    run_all(benchmarks, table=table, seconds=lambda: seconds)
    return table


def test_nothing_foreign_reaches_the_table(capfd: pytest.CaptureFixture[str], logs: Path) -> None:
    table = run(toy("noisy"))
    assert [row if isinstance(row, str) else row.what for row in table.rows["noisy"] if not isinstance(row, Failure)] == [
        "speed", "a remark", "memory", "plain",
    ]  # fmt: skip
    assert isinstance(table.out, io.StringIO) and NOISE not in table.out.getvalue()
    assert "".join(capfd.readouterr()) == ""
    assert table.summary() == "targets: 1 met, 1 missed"
    assert list(logs.iterdir()) == [], "a log that nobody needs"


def test_one_that_fails_says_why_and_the_others_go_on() -> None:
    table = run(toy("raising"), toy("noisy"))
    before, failure = table.rows["raising"]
    assert before == Measurement("before", 1.0)
    assert isinstance(failure, Failure) and failure.reason == "ValueError: the disk is full"
    assert "Traceback" in Path(failure.log).read_text(encoding="utf-8")
    assert len(table.rows["noisy"]) == 4
    assert table.summary() == "targets: 1 met, 1 missed; failed: raising"


def test_one_whose_process_dies_says_with_which_words() -> None:
    before, failure = run(toy("dying")).rows["dying"]
    assert before == Measurement("before", 1.0)
    assert isinstance(failure, Failure) and failure.reason == "it ended with code 3: last words"


def test_one_that_takes_too_long_is_stopped_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the process alone takes seconds to start: time passes when it hangs.
    monkeypatch.setattr("benchmarks.running.time", SimpleNamespace(monotonic=lambda: 9.0 * (tmp_path / "pid").exists()))
    before, failure = run(toy("hanging", str(tmp_path)), seconds=2.0).rows["hanging"]
    assert before == Measurement("before", 1.0)
    assert isinstance(failure, Failure) and failure.reason == "it was stopped after 2 s"
    started = int((tmp_path / "pid").read_text(encoding="utf-8"))
    assert gone(started), "a process that nobody ended"


@pytest.mark.parametrize("number", INTERRUPTS)
def test_who_stops_it_stops_what_it_started(number: signal.Signals, tmp_path: Path) -> None:
    def stop() -> None:
        wait_for(tmp_path / "pid")
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        run(toy("hanging", str(tmp_path)))
    assert gone(int((tmp_path / "pid").read_text(encoding="utf-8"))), "a process that nobody ended"


def test_where_no_time_is_left_nothing_is_started() -> None:
    table = run(toy("noisy"), seconds=-3.0)
    assert table.rows["noisy"] == [Failure("no time is left")]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process ends soon; whoever takes it over may be slow to bury it."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].startswith("Z"):
            return True
        time.sleep(0.1)
    return False


def test_benchmarks_are_found_by_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "speed.py").write_text('"""How fast it is.\n\nMore."""\n\ndef bench_speed():\n    yield "x"\n')
    (folder / "helper.py").write_text("def bench_something_else():\n    pass\n")
    [(name, benchmark)] = found_benchmarks(folder).items()
    assert (name, benchmark.module, benchmark.function) == ("speed", "benchmarks.speed", "bench_speed")
    assert benchmark.about == "How fast it is."


def test_all_that_are_there_are_found_and_say_what_they_are() -> None:
    found = found_benchmarks()
    assert {"cache_reads", "kd_step", "trl_step", "views"} <= set(found)
    assert all(benchmark.about.endswith(".") for benchmark in found.values())
