"""Models are read as they are: what files lack is drawn by a seed where that is meant, and refused elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertModel

from configs.errors import ModelError
from student_train.models.loading import load_seeded, require_all_weights


@pytest.fixture
def body(tmp_path: Path) -> Path:
    config = BertConfig(
        vocab_size=11, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4, num_labels=3
    )
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def load(folder: Path, *, seed: int) -> tuple[Any, frozenset[str]]:
    return load_seeded(
        AutoModelForSequenceClassification,
        folder,
        config=AutoConfig.from_pretrained(folder),
        dtype=torch.float32,
        seed=seed,
        wanted="for classification",
        cure="name another",
    )


def test_what_files_lack_is_drawn_by_the_seed_and_named(body: Path) -> None:
    before = torch.random.get_rng_state()
    (first, drawn), (again, _), (other, _) = load(body, seed=1), load(body, seed=1), load(body, seed=2)
    assert drawn == {"classifier.weight", "classifier.bias"}
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's noise changes"


def test_what_does_not_load_is_told_with_what_was_wanted_and_the_cure(body: Path) -> None:
    (body / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"cannot be loaded for classification \(.*\): name another$"):
        load(body, seed=1)


def test_weights_that_nobody_meant_to_draw_are_refused(tmp_path: Path) -> None:
    require_all_weights(tmp_path, [])
    with pytest.raises(ModelError, match=r"lacks 2 of the weights .* the first a: copy or download it again"):
        require_all_weights(tmp_path, ["b", "a"])
