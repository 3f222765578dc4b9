"""A lane is a real process: it answers, says in a line why a trial failed, and is started anew when it was killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sweep_builders import swept

from orchestration.sweeps.lane import Lane, LaneJob
from orchestration.sweeps.space import trial_config
from orchestration.sweeps.trials import Outcome

CONFIG = json.loads(trial_config(swept({"students.kd.stages.0.steps": [1, 2]}), {}, name="small").model_dump_json())
JOB = LaneJob(json.dumps(CONFIG | {"teacher": {"model": {"path": "nowhere"}}}), ".", "fill", "")


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    made = Lane(tmp_path / "logs" / "lane.log")
    yield made
    made.close()


def answered(lane: Lane) -> Outcome:
    deadline = time.monotonic() + 120
    while (found := lane.answer()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def process_of(lane: Lane) -> psutil.Process:
    assert lane._process is not None
    return psutil.Process(lane._process.pid)


@pytest.mark.timeout(300)
def test_a_trial_that_cannot_begin_is_a_line_and_the_next_is_taken(lane: Lane) -> None:
    lane.begin(JOB)
    assert "nowhere" in answered(lane).failure
    process = process_of(lane)
    lane.begin(JOB)
    assert "nowhere" in answered(lane).failure
    assert process_of(lane) == process and process.is_running()
    lane.close()
    assert not process.is_running()


def test_a_lane_that_was_killed_says_how_and_is_started_anew(lane: Lane) -> None:
    lane.begin(JOB)
    os.kill(process_of(lane).pid, signal.SIGKILL)
    assert "ended by SIGKILL" in answered(lane).failure
    lane.begin(JOB)
    assert "nowhere" in answered(lane).failure
