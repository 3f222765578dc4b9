"""Signals of a tiny BERT asked under Ray: all is kept, a killed engine is replaced, and a wrong one keeps nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import signal_driver
import torch
from task_heads import save_classifier
from transformers import BertConfig, BertForSequenceClassification

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = save_classifier(tmp_path_factory.mktemp("model"))
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(place)
    return place


def driven(place: Path, model_dir: Path, trouble: str) -> dict[str, Any]:
    driver = subprocess.run(
        [sys.executable, signal_driver.__file__, str(place), str(model_dir), trouble],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    told: dict[str, Any] = json.loads(driver.stdout.splitlines()[-1])
    return told


def test_all_signals_are_asked_once(tmp_path: Path, model_dir: Path) -> None:
    told = driven(tmp_path, model_dir, "nothing")
    assert told["engines"] == 2 and "error" not in told
    assert told["rows"] == told["kept"] == 2 * signal_driver.TEXTS
    assert (told["failed"], told["damage"]) == (0, 0)
    assert told["tokens"] == told["text_tokens"]
    assert told["gpu_seconds"] > 0


def test_a_killed_engine_costs_what_it_had_not_committed(tmp_path: Path, model_dir: Path) -> None:
    told = driven(tmp_path, model_dir, "lost")
    assert "error" not in told
    assert told["kept"] == 2 * signal_driver.TEXTS and told["damage"] == 0
    # What the killed engine had read and not committed is read again, and no more than all.
    assert told["text_tokens"] <= told["tokens"] < 2 * told["text_tokens"]


def test_an_engine_that_disagrees_keeps_nothing(tmp_path: Path, model_dir: Path) -> None:
    told = driven(tmp_path, model_dir, "wrong")
    assert told["error"].startswith("EngineError: ") and "off a plain forward pass" in told["error"]
    assert told["kept"] == 0 and "rows" not in told
