"""A row at which engines kill themselves under Ray is set aside, and all others are answered."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import deadly_driver
import pytest

from orchestration.cluster.leases import LEASE
from orchestration.fill.suspects import KILLED

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
UNDER_WAY = 2 * LEASE
"""Of two engines, each with a lease at a time."""


def driven(place: Path, marked: int) -> dict[str, Any]:
    driver = subprocess.run(
        [sys.executable, deadly_driver.__file__, str(place), str(marked)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    told: dict[str, Any] = json.loads(driver.stdout.splitlines()[-1])
    return told


def test_the_row_that_kills_is_set_aside_and_all_others_are_answered(tmp_path: Path) -> None:
    told = driven(tmp_path, 20)
    assert told["failed"] == {"20": KILLED}
    assert told["kept"] == deadly_driver.ROWS - 1 and told["damage"] == 0
    assert told["starts"] <= math.log2(UNDER_WAY) + 4
    assert (told["again"], told["started_again"], told["remembered"]) == (1, 0, 1)


def test_engines_that_kill_themselves_at_every_row_end_the_run_in_one_line(tmp_path: Path) -> None:
    told = driven(tmp_path, -1)
    assert told["error"].startswith("EngineError: engines died ") and "\n" not in told["error"]
    assert "whatever they were asked" in told["error"]
    assert (told["kept"], told["remembered"]) == (0, 0)
    assert told["starts"] <= 2 * math.log2(UNDER_WAY) + 3
