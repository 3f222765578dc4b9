"""Engines that stop, or run out of memory, under Ray: every row is answered once, and right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import faulty_driver
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def driven(place: Path, fault: str) -> dict[str, Any]:
    driver = subprocess.run(
        [sys.executable, faulty_driver.__file__, str(place), fault],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    told: dict[str, Any] = json.loads(driver.stdout.splitlines()[-1])
    assert told["kept"] == faulty_driver.ROWS and told["wrong"] == told["failed"] == told["damage"] == 0
    assert told["tokens"] == told["tokens_of_kept"]
    return told


@pytest.mark.parametrize("fault", ["woken", "left"])
def test_others_are_asked_what_a_stopped_engine_was(fault: str, tmp_path: Path) -> None:
    """Also one that does not wake up is gone: the driver waits until its process is."""
    told = driven(tmp_path, fault)
    assert told["starts"] == 2
    assert ("silent for too long" in told["late"]) == (fault == "woken")


def test_engines_that_run_out_of_memory_are_started_with_smaller_batches(tmp_path: Path) -> None:
    told = driven(tmp_path, "heavy")
    # From 64 sequences at once.
    assert (told["starts"], told["sequences"]) == (3, faulty_driver.BEARABLE)
    assert "it died of RuntimeError: CUDA out of memory" in told["late"]
