"""A plain forward pass, in one piece and layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llama import VOCAB, full_logprobs, save_tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

from teacher_server.reference import NoReferenceError, reference_rows

PROMPTS = tuple(
    (1, *(int(token) for token in np.random.default_rng(each).integers(3, VOCAB, size=24))) for each in range(2)
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"), seed=0)


def test_row_i_predicts_token_i_plus_one(model_dir: Path) -> None:
    (rows,) = reference_rows(model_dir, PROMPTS[:1], dtype="float32")
    whole = full_logprobs(model_dir, PROMPTS[0])
    assert len(rows.target_logprobs) == len(rows.best_ids) == len(PROMPTS[0]) - 1
    for place, token in enumerate(PROMPTS[0][1:]):
        assert rows.target_logprobs[place] == pytest.approx(whole[place][token], abs=1e-5)
        assert rows.best_ids[place] == whole[place].argmax()


def test_layer_by_layer_says_the_same_as_the_whole_model(model_dir: Path) -> None:
    sequences = [PROMPTS[0], PROMPTS[1][:9], PROMPTS[0][:17]]
    whole = reference_rows(model_dir, sequences, dtype="float32")
    told: list[tuple[int, int]] = []
    size = sum(path.stat().st_size for path in model_dir.glob("*.safetensors"))
    by_layers = reference_rows(
        model_dir, sequences, dtype="float32", memory_bytes=2**30 + size // 2, report=lambda *at: told.append(at)
    )
    assert [len(rows.best_ids) for rows in by_layers] == [24, 8, 16]
    for ours, theirs in zip(by_layers, whole, strict=True):
        np.testing.assert_allclose(ours.target_logprobs, theirs.target_logprobs, atol=1e-5)
        assert ours.best_ids.tolist() == theirs.best_ids.tolist()
    # Once through all layers, for all sequences together.
    assert told == [(done, told[-1][1]) for done in range(1, told[-1][1] + 1)] and len(told) >= 2


def test_tied_embeddings_are_found_layer_by_layer(tmp_path: Path) -> None:
    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64, vocab_size=VOCAB,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    whole = reference_rows(tmp_path, PROMPTS, dtype="float32")
    by_layers = reference_rows(tmp_path, PROMPTS, dtype="float32", memory_bytes=2**30 + VOCAB * 32 * 4)
    for ours, theirs in zip(by_layers, whole, strict=True):
        np.testing.assert_allclose(ours.target_logprobs, theirs.target_logprobs, atol=1e-5)


def test_a_machine_without_room_for_one_matrix_is_named(model_dir: Path) -> None:
    with pytest.raises(NoReferenceError, match=r"1\.0 GiB are needed to compare .* 0\.5 GiB are free"):
        reference_rows(model_dir, PROMPTS, dtype="float32", memory_bytes=2**29)
