"""A random model is the same everywhere, loads like any other, and has something to distil."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cache import fingerprint_model
from configs import ConfigError
from configs.models import ModelSource
from configs.schema import ModelShape
from orchestration.inputs import random_models
from orchestration.inputs.models import materialise, open_model
from orchestration.inputs.random_models import byte_tokenizer

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, tied_embeddings=True, max_positions=128)


def random_source(*, seed: int = 0, **changes: object) -> ModelSource:
    return ModelSource(random=SHAPE.model_copy(update=changes), seed=seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, never changed by a test."""
    return materialise(random_source(), models_root=tmp_path_factory.mktemp("models")).directory


def test_a_random_model_loads_in_transformers_and_says_something(made: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(made, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(made)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        logits = model(**ids).logits[0, -1]
    assert logits.shape == (SHAPE.vocab,)
    assert torch.isfinite(logits).all()
    # Peaked enough to have something to distil, and the best token is one that the tokenizer knows.
    assert float(logits.softmax(-1).max()) > 5 / SHAPE.vocab
    assert int(logits.argmax()) < len(tokenizer)


def test_a_random_model_has_the_shape_that_was_asked_for(made: Path) -> None:
    files = open_model(made, label="random")
    assert files.shape == SHAPE.model_copy(update={"head_dim": SHAPE.head_size})
    assert sum(tensor.size for tensor in load_file(made / "model.safetensors").values()) == SHAPE.parameters
    assert files.vocab == len(byte_tokenizer()) == 261
    assert files.stop_ids == (files.tokenizer.eos_token_id,)


def test_the_same_seed_gives_the_same_weights_anywhere(made: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    again = materialise(random_source(), models_root=tmp_path).directory
    ours, theirs = load_file(made / "model.safetensors"), load_file(again / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert fingerprint_model(made) == fingerprint_model(again)


def test_making_a_model_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    materialise(random_source(seed=9), models_root=tmp_path)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("source", [random_source(seed=1), random_source(layers=1)])
def test_another_seed_or_shape_is_another_model(source: ModelSource, made: Path, tmp_path: Path) -> None:
    other = materialise(source, models_root=tmp_path).directory
    assert other.name != made.name
    assert fingerprint_model(other).weights_sha256 != fingerprint_model(made).weights_sha256


def test_a_model_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = materialise(random_source(), models_root=tmp_path).directory
    monkeypatch.setattr(random_models, "_random_llama", lambda *_, **__: pytest.fail("made twice"))
    assert materialise(random_source(), models_root=tmp_path).directory == first


def test_a_vocabulary_too_small_for_the_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"random\.vocab=200 is less than the byte tokenizer's 261: raise it"):
        materialise(random_source(vocab=200), models_root=tmp_path)


@pytest.mark.parametrize("text", ["Ünïcode ☃ 漢字", "\x00\x01\x7f", " leading and trailing ", "a\nb\r\n\tc", "🙂"])
def test_the_byte_tokenizer_loses_nothing(text: str) -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
