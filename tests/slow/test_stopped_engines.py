"""An engine whose process is stopped loses what it was asked, under Ray; its late answer is dropped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stopped_driver

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("wakes", [True, False], ids=["woken", "left"])
def test_others_are_asked_what_a_stopped_engine_was(wakes: bool, tmp_path: Path) -> None:
    """Also one that does not wake up is gone: the driver waits until its process is."""
    driver = subprocess.run(
        [sys.executable, stopped_driver.__file__, str(tmp_path), str(int(wakes))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    told = json.loads(driver.stdout.splitlines()[-1])
    assert told["kept"] == stopped_driver.ROWS and told["wrong"] == told["failed"] == told["damage"] == 0
    assert told["tokens"] == told["tokens_of_kept"]
    assert told["starts"] == 2
    assert ("silent for too long" in told["late"]) == wakes
