"""Decoders taken apart: which may be packed for, over what a distribution is taken, and what is not completed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from student_builders import PADDED, VOCAB, tiny_llama
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from configs.errors import ModelError
from student_train.models.decoder import can_pack, load_decoder, normalised_rows, take_apart

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 4,
}


@pytest.mark.parametrize(
    "config", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Gemma2Config, Gemma3TextConfig]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoders_with_attention_alone_are_packed_for(config: type, dtype: torch.dtype) -> None:
    assert can_pack(take_apart(random_model(config, dtype=dtype)))


def test_a_decoder_whose_convolutions_run_on_is_not_packed_for() -> None:
    model = random_model(Lfm2Config, layer_types=["conv", "full_attention"])
    assert not can_pack(take_apart(model))


def random_model(config: type, *, dtype: torch.dtype = torch.float32, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config(**SIZES | more), attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than the usual start, so that what stands before a token matters.
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.to(dtype).eval()


@pytest.mark.parametrize(("k", "rows"), [(0, PADDED), (8, PADDED), (VOCAB - 1, PADDED), (VOCAB, VOCAB)])
def test_a_student_is_normalised_over_as_much_as_its_teacher(k: int, rows: int) -> None:
    assert normalised_rows(PADDED, vocab=VOCAB, k=k) == rows


def test_a_model_that_lacks_weights_is_not_completed_by_chance(tmp_path: Path) -> None:
    start = tiny_llama(tmp_path)
    weights = load_file(start / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the weights .* the first model\.layers\.1\.mlp\.up_proj\.weight"):
        load_decoder(start, dtype=torch.float32)
