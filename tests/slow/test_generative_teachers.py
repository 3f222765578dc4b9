"""Experiments that distil a task from a language model in a real engine: ended by a budget, gone on with, asked once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import BudgetReached
from evaluation.results import ModelResults
from orchestration.comparison.report import read_results

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.group, pytest.mark.timeout(1800)]

STAGE = {"data": ["train"], "steps": 4, "batch_size": 8, "learning_rate": 1e-3}


def experiment(place: Path, *, answers: str, objective: str, **settings: Any) -> Path:
    """The file of an experiment whose teacher is a decoder of random weights that reads bytes."""
    tiny = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    stage = STAGE | {"objective": objective} | ({"labels": "teacher"} if objective == "hard_labels" else {})
    places = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    values = {
        "name": "spoken",
        "task": str(ROOT / "configs/tasks/reviews.yaml"),
        "teacher": {"model": tiny["teacher"]["model"], "answers": answers, "max_tokens": 128, **settings},
        "students": {"bag": {"start": {"kind": "bag", "embedding_size": 8}, "stages": [stage]}},
        "runtime": {key: str(place / name) for key, name in places.items()}
        | {"accelerator": "cpu", "teacher_engine": tiny["runtime"]["teacher_engine"]}
        | {"training": {"workers": 1, "zero_stage": 0}},
    }
    path = place / f"{answers}-{objective}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def distill(config: Path, command: str, *changes: str, expected: int = 0) -> str:
    arguments = [sys.executable, "-m", "orchestration", command, "--config", str(config)]
    arguments += [part for value in changes for part in ("--set", value)]
    done = subprocess.run(arguments, cwd=config.parent, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def teacher_of(config: Path) -> ModelResults:
    """The row of the teacher in the newest finished run."""
    (*_, newest) = sorted((config.parent / "runs").glob("spoken-*/report.json"), key=lambda path: path.stat().st_mtime)
    (found,) = (row for row in read_results(newest.parent).models if row.role == "teacher")
    return found


def test_labels_are_asked_once_whatever_ends_the_first_run(tmp_path: Path) -> None:
    config = experiment(tmp_path, answers="labels", objective="logit_mse", calibrated=True)
    ended = distill(config, "run", "budgets.max_teacher_tokens=4000", expected=BudgetReached.exit_code)
    assert "budgets.max_teacher_tokens" in ended
    said = distill(config, "run")
    assert "agree with a plain forward pass" in said and "cached" in said
    row = teacher_of(config)
    assert row.tasks[0].answered_by == "label likelihood per token, calibrated" and row.serving is None
    assert all(example.predicted is not None for example in (*row.tasks[0].examples, *row.dev[0].examples))
    again = experiment(tmp_path, answers="labels", objective="soft_labels", calibrated=True)
    said = distill(again, "run")
    assert "every row is in the cache and no engine starts" in said and "teacher engine" not in said
    assert repr(teacher_of(again).tasks) == repr(row.tasks)


def test_a_model_that_would_babble_writes_what_can_be_read(tmp_path: Path) -> None:
    config = experiment(tmp_path, answers="text", objective="hard_labels")
    said = distill(config, "run")
    assert "could not be read" not in said
    row = teacher_of(config)
    for example in (*row.tasks[0].examples, *row.dev[0].examples):
        assert example.answer.strip() in ("positive", "negative")
        assert example.predicted == (example.answer.strip(),)
