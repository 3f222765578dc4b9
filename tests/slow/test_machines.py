"""Engines and workers on several machines, under Ray: they lie where the plan says, and a machine may end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import machines_driver
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def test_engines_are_spread_workers_packed_and_a_fill_outlives_a_machine() -> None:
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="m-") as place:
        driver = subprocess.run(
            [sys.executable, machines_driver.__file__, place],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
            capture_output=True,
            text=True,
        )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    told = json.loads(driver.stdout.splitlines()[-1])
    assert told["spread"] == told["planned_spread"] == [2, 2]
    assert (told["widths"], told["shared_gpus"]) == ([2, 2, 2, 2], 0)
    assert told["packed"] == told["planned_packed"] == [4, 1]
    assert told["beside"] == [False, False]
    assert told["free"] == told["free_again"] == 8
    assert told["refused"] == (
        "3 engines of 3 GPUs, 3 CPUs each do not fit the cluster, which has room for 2: 2 x (4 GPUs, 8 CPUs), "
        "1 x (0 GPUs, 4 CPUs); lower runtime.teacher_engine.count"
    )
    # Two of four engines went with their machine, with what they had answered: others were asked that, once.
    assert (told["starts"], told["up"], told["on"], told["free_at_last"]) == (2, 2, [2], 4)
    assert (told["kept"], told["failed"], told["damage"]) == (machines_driver.ROWS, 0, 0)
    assert told["tokens"] == told["tokens_of_kept"]
