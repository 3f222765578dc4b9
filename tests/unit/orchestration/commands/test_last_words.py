"""A run that is ended without its knowledge is spoken for by the process beside it, and no other is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.commands.last_words import LINE, last_words

COMMAND = """
import os, signal, sys, time
from orchestration.commands import main as cli
def wait(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
cli.run_pipeline = wait
sys.exit(cli.main(["run", "--config", "configs/tiny.yaml"]))
"""
ROOT = Path(__file__).resolve().parents[4]


def test_a_run_that_is_killed_is_spoken_for_by_the_process_beside_it() -> None:
    """So is one that Ray's core ends, which Python does not hear of either."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert errors == f"{LINE}\n"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_whatever_ends_the_block_is_said_by_the_command_itself(
    error: type[BaseException] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        with last_words():
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert capfd.readouterr().err == ""
