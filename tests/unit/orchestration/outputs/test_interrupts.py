"""Signals that ask a run to stop end it like Ctrl-C, and only while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from orchestration.outputs.interrupts import INTERRUPTS, hangups_blocked, stopped_by_signals


def test_nohup_is_respected() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, former)


def test_afterwards_signals_mean_what_they_meant_before() -> None:
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in INTERRUPTS} == before


def test_what_is_started_without_hangups_outlives_one() -> None:
    """A closed terminal reaches Ray's daemons too, which have to stay until the worker group has written its checkpoint."""
    asleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with hangups_blocked():
        lasting = subprocess.Popen(asleep, stdout=subprocess.PIPE, preexec_fn=_default_signals)
    ordinary = subprocess.Popen(asleep, stdout=subprocess.PIPE, preexec_fn=_default_signals)
    try:
        for process in (lasting, ordinary):
            assert process.stdout is not None and process.stdout.readline() == b"\n"
            process.send_signal(signal.SIGHUP)
        assert ordinary.wait(60) == -signal.SIGHUP
        assert lasting.poll() is None
    finally:
        for process in (lasting, ordinary):
            process.kill()
            process.communicate()


def _default_signals() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_DFL)
