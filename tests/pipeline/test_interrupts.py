"""An interrupt comes when it does harm: in the middle of a write, or while a gang is waited for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration import ray_train
from orchestration.interrupts import INTERRUPTS, interrupts_held
from orchestration.ray_train import _Gang
from orchestration.tracking import Tracker


@pytest.fixture(params=INTERRUPTS, ids=lambda number: signal.Signals(number).name)
def interrupt(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that raises KeyboardInterrupt, as in the command line."""
    former = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, former)


def test_an_interrupt_waits_for_the_end_of_the_block(interrupt: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        os.kill(os.getpid(), interrupt)
        done.append("first")
        done.append("second")
    assert done == ["first", "second"]
    assert signal.getsignal(interrupt) is signal.default_int_handler


def test_other_threads_are_never_interrupted_and_may_hold() -> None:
    done = []

    def work() -> None:
        with interrupts_held():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_write_to_the_store_is_whole_before_an_interrupt(
    interrupt: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a transaction it would leave the SQLite file locked by this process."""
    tracker = Tracker(tmp_path, uri=f"sqlite:///{tmp_path}/never-made.db")
    written: list[str] = []

    def perform(_: object) -> None:
        written.append("begun")
        os.kill(os.getpid(), interrupt)
        written.append("committed")

    monkeypatch.setattr(tracker, "_perform", perform)
    with pytest.raises(KeyboardInterrupt):
        tracker.finish("pipeline")
    assert written == ["begun", "committed"]


def test_a_gang_that_works_on_after_an_interrupt_is_still_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`Thread.join` of Python 3.11 takes a thread for ended once an interrupt came while it waited."""
    may_end = threading.Event()
    monkeypatch.setattr(ray_train, "_trainer", lambda *_args, **_settings: SimpleNamespace(fit=may_end.wait))
    job: Any = SimpleNamespace()
    gang = _Gang(job, log_dir=tmp_path, accelerator="cpu", gpu_share=1.0)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        gang.running(30.0)
    assert gang.running(0.1)
    may_end.set()
    gang.wait(30.0)
    assert not gang.running(0.0)
    timer.join()
