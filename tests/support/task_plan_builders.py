"""Plans of a task experiment in a folder, as the command prints them on a machine of two CPUs without a network."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import ray
import yaml
from task_files import write_task
from task_heads import save_classifier

from configs import load_experiment
from configs.task_experiment import TaskDistillConfig
from orchestration.commands.plan_task import print_task_plan
from orchestration.plan import hardware

STAGE = {"objective": "logit_mse", "data": ["train", "transfer"], "epochs": 2, "batch_size": 2}
EXPERIMENT: dict[str, Any] = {
    "name": "moods",
    "task": "task/task.yaml",
    "teacher": {"model": {"path": "teacher"}, "max_tokens": 3},
    "data": {"transfer": [{"path": "transfer.jsonl"}]},
    "students": {
        "bag": {"start": {"kind": "bag"}, "stages": [STAGE]},
        "two": {
            "start": {"kind": "transformer", "keep_layers": 1},
            "seeds": 2,
            "stages": [STAGE, {"objective": "hard_labels", "steps": 7}],
        },
    },
}

ROWS = {
    "train": [{"text": "sun oslo", "mood": "good"}, {"text": "rain oslo", "mood": "bad"}],
    "dev": [{"text": "sun rome", "mood": "good"}],
    "test": [{"text": "rain rome", "mood": "bad"}],
}


def set_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, two CPUs, no network, nothing downloaded before."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def write_experiment(tmp_path: Path) -> Path:
    """An experiment with its task, its teacher and three unlabelled texts, one of which is a test text."""
    place = tmp_path / "here"
    write_task(place / "task", rows=ROWS)
    save_classifier(place / "teacher")
    lines = [{"text": "sun where sun oslo"}, {"text": "oslo"}, {"text": "rain rome"}]
    (place / "transfer.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    return place


def experiment(folder: Path, **changes: Any) -> TaskDistillConfig:
    """The experiment with whole blocks replaced, and with places of its own."""
    places = {root: str(folder.parent / root) for root in ("cache_root", "models_root", "run_root")}
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "runtime": places, **changes}))
    config = load_experiment(folder / "experiment.yaml")
    assert isinstance(config, TaskDistillConfig)
    return config


def planned(folder: Path, **changes: Any) -> str:
    stream = io.StringIO()
    config = experiment(folder, **changes)
    before = sorted(folder.parent.rglob("*"))
    print_task_plan(config, config_dir=folder, assume_gpus=None, stream=stream)
    assert sorted(folder.parent.rglob("*")) == before
    assert not ray.is_initialized()
    return stream.getvalue()


def row(text: str, name: str, *, table: str) -> list[str]:
    """The cells of one row of a table."""
    after = text.partition(table)[2]
    line = next(line for line in after.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


EXAMPLES = "Examples"
ASKED = "What the teacher is asked"
TRAINED = "Who is trained"
