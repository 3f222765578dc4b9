"""Runs killed with SIGKILL at bad moments: the next run goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from configs.places import CURVES
from orchestration.comparison.report import read_results
from orchestration.outputs.curves import read_curve

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
MARK = "STILLROOM_TEST_MARK"


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in _marked(tmp_path):
        process.kill()


def _command(place: Path, *changes: str, command: str = "run") -> list[str]:
    names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    values = (*(f"runtime.{key}={place / name}" for key, name in names.items()), *changes)
    sets = [part for value in values for part in ("--set", value)]
    return [sys.executable, "-m", "orchestration", command, "--config", str(ROOT / "configs/tiny.yaml"), *sets]


def _start(place: Path, *changes: str, command: str = "run") -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(place, *changes, command=command),
        cwd=place,
        env=os.environ | {MARK: str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _marked(place: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _kill_when(place: Path, *, line: str, delay_s: float) -> None:
    """Start a run and SIGKILL its driver `delay_s` after it printed `line`."""
    process = _start(place)
    assert process.stdout is not None
    for printed in process.stdout:
        if line in printed:
            break
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_until_gone(place)


def _wait_until_gone(place: Path) -> None:
    """Ray's daemons share the fate of their driver; on busy cores the last of them notices after more than a minute."""
    deadline = time.monotonic() + 180
    while _marked(place) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert _marked(place) == []


def test_a_driver_killed_in_every_stage_ends_in_the_same_table(place: Path) -> None:
    moments = random.Random(0)
    for line in ("- teacher engine", "- fill", "- train seqkd", "- train kd", "- student answers"):
        _kill_when(place, line=line, delay_s=moments.uniform(0.0, 8.0))
    process = _start(place)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    (run,) = (place / "runs").glob("tiny-*")
    assert [model.name for model in read_results(run).models] == ["teacher", "untouched", "seqkd", "kd"]
    client = MlflowClient(tracking_uri=f"sqlite:///{place}/runs/mlflow.db")
    for name in ("seqkd", "kd"):
        run_id = json.loads((run / "mlflow-runs.json").read_text())[name]
        steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
        assert steps == sorted(set(steps)) and len(steps) == 4
    # A killed run leaves a directory that the next one sweeps.
    assert _marked(place) == []


LONGER = ("students.kd.stages.0.steps=200", "runtime.training.checkpoint_every_s=0.3")


def test_killed_training_ends_in_the_same_weights(place: Path) -> None:
    calm, killed = place / "calm", place / "killed"
    calm.mkdir()
    _train(calm)
    # The same answers of the teacher, so that whatever differs afterwards comes from the kills.
    killed.mkdir()
    for part in ("cache", "models"):
        shutil.copytree(calm / part, killed / part)
    moments = random.Random(1)
    for victim in ("driver", "rank"):
        process = _start(killed, *LONGER, command="train")
        curve = _wait_for_steps(killed, process)
        time.sleep(moments.uniform(0.0, 1.0))
        if victim == "driver":
            process.kill()
        else:
            ranks = [p for p in _marked(killed) if any("TrainingWorker" in part for part in p.cmdline())]
            moments.choice(ranks).kill()
        process.communicate(timeout=120)
        assert process.returncode != 0, curve
        _wait_until_gone(killed)
    _train(killed)
    for student in (calm / "runs/students").iterdir():
        again = killed / "runs/students" / student.name
        assert (again / "model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()
        ours, theirs = (read_curve(folder / CURVES) for folder in (again, student))
        assert [(p.step, p.values.get("train/loss")) for p in ours] == [
            (p.step, p.values.get("train/loss")) for p in theirs
        ]


def _train(place: Path) -> None:
    process = _start(place, *LONGER, command="train")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def _wait_for_steps(place: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until the `kd` student has a checkpoint more than at the start; the file of its curve."""
    known = {path: path.stat().st_mtime for path in (place / "runs/work").glob("*/LATEST")}
    while process.poll() is None:
        for path in (place / "runs/work").glob("*/LATEST"):
            if path.stat().st_mtime > known.get(path, 0.0):
                return path.parent / CURVES
        time.sleep(0.1)
    raise AssertionError(process.communicate()[0])


def test_an_engine_killed_during_the_fill_is_replaced(place: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        prompts = Path(directory) / "many.jsonl"
        rows = [{"prompt": f"Say something about the number {n} and the one after it."} for n in range(1500)]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [
            *_command(place, command="fill"), "--set", f"data.train.path={prompts}", "--set", "data.train.limit=1500",
            "--set", "runtime.commit_every_s=1",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=place, env=os.environ | {MARK: str(place)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        for printed in process.stdout:
            if "- fill" in printed:
                break
        time.sleep(4)
        victims = [p for p in _marked(place) if any("EngineActor" in part for part in p.cmdline())]
        assert victims, "no engine to kill"
        for victim in victims:
            victim.kill()
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        (run,) = (place / "runs").glob("tiny-*")
        assert "starting new engines" in (run / "logs" / "driver.log").read_text()
        assert "fill" in output
