"""The files of an exported student, and its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from student_builders import tiny_llama
from training_jobs import make_job
from transformers import AutoModelForCausalLM, GenerationConfig

from cache.views import CacheView
from configs.stages import StageConfig
from student_train.job import StepMetrics
from student_train.models.export import ModelCard, card_text, export_student, write_model
from student_train.training.trial import require_trainable

KD = StageConfig.model_validate({"objective": "kd", "steps": 1})
MEASURED = (
    StepMetrics(0, {"dev/loss": 3.5, "dev/ce": 4.0}),
    StepMetrics(2, {"dev/loss": 2.25}),
    StepMetrics(4, {"dev/loss": 2.5}),
)


def card(folder: Path, **fields: Any) -> ModelCard:
    known = {
        "teacher": "a teacher",
        "licence": "MIT",
        "combined": "",
        "start": "random",
        "steps": 4,
        "selected_step": 2,
    }
    view = CacheView.load(make_job(folder).train_view)
    return ModelCard(**{"view": view, "stage": KD, "measured": MEASURED, **known, **fields})


def test_a_card_without_a_licence_says_so_and_warns(tmp_path: Path) -> None:
    _, front, text = card_text(card(tmp_path, licence=None, measured=())).split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    assert "not stated by the configuration" in text
    assert "held-out" not in text


def test_a_card_compares_the_start_with_the_selected_step(tmp_path: Path) -> None:
    text = card_text(card(tmp_path))
    assert "| held-out metric | step 0 | step 2 |" in text
    assert "| dev/loss | 3.5000 | 2.2500 |" in text
    assert "dev/ce" not in text


def test_an_export_replaces_the_one_before_it(tmp_path: Path) -> None:
    start = tiny_llama(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(start)
    out = tmp_path / "out"
    out.mkdir()
    (out / "left over").touch()
    made = export_student(model, model.state_dict(), start=start, out=out, card=card(tmp_path))
    assert made == out
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    # A tied head is stored once.
    assert "lm_head.weight" not in load_file(out / "model.safetensors")


GENERATION: dict[str, dict[str, Any]] = {
    "llama 2": {"do_sample": False, "temperature": 0.9, "top_p": 0.6},
    "no do_sample": {"temperature": 0.7, "top_k": 20},
    "beams": {"length_penalty": 2.0, "early_stopping": True},
    "padding": {"pad_token_id": -1},
}


@pytest.mark.parametrize("said", GENERATION.values(), ids=GENERATION)
def test_a_contradictory_generation_config_does_not_stop_an_export(said: dict[str, Any], tmp_path: Path) -> None:
    start = tiny_llama(tmp_path / "start")
    (start / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5], **said}))
    require_trainable(start, [KD])
    model = AutoModelForCausalLM.from_pretrained(start)
    weights = model.state_dict()
    (tmp_path / "out").mkdir()
    write_model(model, weights, start=start, folder=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [2, 5] and not said.keys() & {
        key for key in written if written[key] == said.get(key) is not None
    } - {"do_sample"}
    GenerationConfig.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
    assert torch.equal(
        load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"], weights["model.norm.weight"]
    )


def test_settings_of_sampling_survive_where_sampling_is_asked_for(tmp_path: Path) -> None:
    start = tiny_llama(tmp_path / "start")
    said = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}
    (start / "generation_config.json").write_text(json.dumps(said))
    model = AutoModelForCausalLM.from_pretrained(start)
    (tmp_path / "out").mkdir()
    write_model(model, model.state_dict(), start=start, folder=tmp_path / "out")
    assert said.items() <= json.loads((tmp_path / "out" / "generation_config.json").read_text()).items()


@pytest.mark.parametrize("licence", ["teacher: mit; other: gemma", "llama2 (used all the same: agreed)"])
def test_what_is_not_one_licence_has_no_name_for_hubs(tmp_path: Path, licence: str) -> None:
    _, front, text = card_text(card(tmp_path, licence=licence, measured=())).split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "other" and licence in text
