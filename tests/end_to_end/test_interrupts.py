"""An interrupt comes when it does harm: in the middle of a write."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestration.outputs.interrupts import INTERRUPTS
from orchestration.tracking.mlflow_calls import MlflowCalls
from orchestration.tracking.tracker import Tracker


@pytest.fixture(params=INTERRUPTS, ids=lambda number: signal.Signals(number).name)
def interrupt(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that raises KeyboardInterrupt, as in the command line."""
    former = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, former)


COMMAND = """
import os, signal, sys, time
from orchestration.commands import main as cli
def wait(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
cli.run_pipeline = wait
sys.exit(cli.main(["run", "--config", "configs/tiny.yaml"]))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", INTERRUPTS)
def test_every_signal_that_ends_a_run_ends_it_cleanly(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a shell's foreground, however this suite itself was started.
        preexec_fn=_default_signals,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "distill: stopped; everything finished so far is kept, run the same command to go on\n"


def test_a_terminal_that_is_gone_does_not_change_how_a_command_ends() -> None:
    """Its last line has nobody to read it."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_default_signals,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 130


def test_a_write_to_the_store_is_whole_whatever_interrupts_the_run(
    interrupt: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a transaction it would leave the SQLite file locked by this process."""
    written: list[str] = []
    whole = threading.Event()

    def perform(*_: object) -> None:
        written.append("begun")
        os.kill(os.getpid(), interrupt)
        written.append("committed")
        whole.set()

    monkeypatch.setattr(MlflowCalls, "perform", perform)
    tracker = Tracker(tmp_path, uri=f"sqlite:///{tmp_path}/never-made.db")
    with pytest.raises(KeyboardInterrupt):
        tracker.finish("pipeline")
        tracker.close()
    assert whole.wait(10)
    assert written == ["begun", "committed"]


STUCK = """
import sys, time
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.orm import Session
from orchestration.tracking.tracker import Tracker
place = Path(sys.argv[1])
tracker = Tracker(place, uri=f"sqlite:///{place}/mlflow.db")
tracker.start("tiny", params={}, tags={})
assert tracker._delivery.drain(at_most_s=60)
def keep_the_lock(*_):
    print("writing", flush=True)
    time.sleep(3600)
event.listen(Session, "after_flush", keep_the_lock)
try:
    tracker.log_final("pipeline", {"loss": 0.5})
    time.sleep(3600)
except KeyboardInterrupt:
    print("closing", flush=True)
finally:
    tracker.close()
"""


@pytest.mark.slow
def test_who_does_not_wait_for_a_write_leaves_the_store_free_and_loses_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=_default_signals,
    )  # fmt: skip
    assert process.stdout is not None
    for line in ("writing\n", "closing\n"):
        assert process.stdout.readline() == line
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _lock(tmp_path / "mlflow.db")
        process.send_signal(signal.SIGINT)
    # The second interrupt ends the wait for the write, which will never end.
    process.communicate(timeout=60)
    _lock(tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(tmp_path, uri=uri)
    tracker.finish("pipeline")
    tracker.close()
    (run_id,) = json.loads((tmp_path / "mlflow-runs.json").read_text()).values()
    assert MlflowClient(tracking_uri=uri).get_run(run_id).data.metrics == {"loss": 0.5}


def _lock(path: Path) -> None:
    """Take the store for writing, and let it go again; sqlite3.OperationalError when somebody has it."""
    with closing(sqlite3.connect(path, timeout=0)) as database:
        database.execute("BEGIN IMMEDIATE")


def _default_signals() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_DFL)
