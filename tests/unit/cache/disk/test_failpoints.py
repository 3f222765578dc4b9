"""A process dies at the place that its environment names, and nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cache.disk.failpoints import FAILPOINTS, REWRITE_FAILPOINTS, VARIABLE, failpoint


def test_it_kills_at_its_own_name_alone() -> None:
    code = "from cache.disk.failpoints import failpoint; failpoint('a'); print('on', flush=True); failpoint('b')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={VARIABLE: "b"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (-signal.SIGKILL, "on")


def test_nothing_happens_where_the_environment_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in FAILPOINTS + REWRITE_FAILPOINTS:
        failpoint(name)
    assert len(set(FAILPOINTS + REWRITE_FAILPOINTS)) == len(FAILPOINTS) + len(REWRITE_FAILPOINTS)
