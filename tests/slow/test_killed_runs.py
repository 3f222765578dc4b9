"""Runs killed with SIGKILL at bad moments: the next run goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from killed_drivers import DriverPlace, newer_checkpoint, wait_for_line, wait_until
from mlflow import MlflowClient

from configs.places import CURVES
from orchestration.comparison.report import read_results
from orchestration.outputs.curves import read_curve

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs/tiny.yaml"


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[DriverPlace]:
    made = DriverPlace(tmp_path, TINY)
    yield made
    made.clear()


def test_a_driver_killed_in_every_stage_ends_in_the_same_table(place: DriverPlace) -> None:
    moments = random.Random(0)
    for line in ("- teacher engine", "- fill", "- train seqkd", "- train kd", "- student answers"):
        place.stop_when(lambda: True, line=line, delay_s=moments.uniform(0.0, 8.0))
    place.finish()
    (run,) = (place.root / "runs").glob("tiny-*")
    assert [model.name for model in read_results(run).models] == ["teacher", "untouched", "seqkd", "kd"]
    client = MlflowClient(tracking_uri=f"sqlite:///{place.root}/runs/mlflow.db")
    for name in ("seqkd", "kd"):
        run_id = json.loads((run / "mlflow-runs.json").read_text())[name]
        steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
        assert steps == sorted(set(steps)) and len(steps) == 4
    # A killed run leaves a directory that the next one sweeps.
    assert place.processes() == []


LONGER = ("students.kd.stages.0.steps=200", "runtime.training.checkpoint_every_s=0.3")


def test_killed_training_ends_in_the_same_weights(place: DriverPlace) -> None:
    calm, killed = (replace(place, root=place.root / name, changes=LONGER) for name in ("calm", "killed"))
    calm.root.mkdir()
    calm.finish(command="train")
    # The same answers of the teacher, so that whatever differs afterwards comes from the kills.
    killed.root.mkdir()
    for part in ("cache", "models"):
        shutil.copytree(calm.root / part, killed.root / part)
    moments = random.Random(1)
    for victim in ("driver", "rank"):
        saved = newer_checkpoint(killed.root / "runs")
        process = killed.start(command="train")
        wait_until(saved, process)
        time.sleep(moments.uniform(0.0, 1.0))
        struck = process if victim == "driver" else moments.choice(killed.processes(named="TrainingWorker"))
        struck.kill()
        process.communicate(timeout=120)
        assert process.returncode != 0
        killed.wait_until_gone()
    killed.finish(command="train")
    for student in (calm.root / "runs/students").iterdir():
        again = killed.root / "runs/students" / student.name
        assert (again / "model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()
        ours, theirs = (read_curve(folder / CURVES) for folder in (again, student))
        assert [(p.step, p.values.get("train/loss")) for p in ours] == [
            (p.step, p.values.get("train/loss")) for p in theirs
        ]


def test_an_engine_killed_during_the_fill_is_replaced(place: DriverPlace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        prompts = Path(directory) / "many.jsonl"
        rows = [{"prompt": f"Say something about the number {n} and the one after it."} for n in range(1500)]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        process = place.start(
            f"data.train.path={prompts}", "data.train.limit=1500", "runtime.commit_every_s=1", command="fill"
        )
        wait_for_line(process, "- fill")
        time.sleep(4)
        victims = place.processes(named="EngineActor")
        assert victims, "no engine to kill"
        for victim in victims:
            victim.kill()
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        (run,) = (place.root / "runs").glob("tiny-*")
        assert "starting new engines" in (run / "logs" / "driver.log").read_text()
