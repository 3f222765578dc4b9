"""Layouts: every sequence once, within the budget, with little padding; and which models may be packed for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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

from student_train.feed.packing import LIKE_LENGTH, lay_out, padded_tokens
from student_train.models.decoder import can_pack, take_apart

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


@given(lengths=st.lists(st.integers(0, 300), max_size=60), tokens=st.integers(1, 600), packs=st.booleans())
def test_every_sequence_once_within_the_budget(lengths: list[int], tokens: int, packs: bool) -> None:
    array = np.array(lengths, dtype=np.int64)
    layouts = lay_out(array, tokens=tokens, packs=packs)
    assert sorted(at for layout in layouts for row in layout for at in row) == list(range(len(lengths)))
    for layout in layouts:
        width = max(int(array[list(row)].sum()) for row in layout)
        alone = len(layout) == 1 and len(layout[0]) == 1
        assert alone or len(layout) * width <= tokens
        assert packs or all(len(row) == 1 for row in layout)


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "buckets"])
@pytest.mark.parametrize(("rows", "tokens"), [(8, 1024), (60, 4096), (300, 8192)])
def test_padding_wastes_less_than_a_tenth(rows: int, tokens: int, packs: bool) -> None:
    draw = np.random.default_rng(rows)
    used = computed = 0
    for _ in range(40):
        lengths = np.clip(draw.lognormal(5.0, 0.8, rows), 8, tokens).astype(np.int64)
        used += int(lengths.sum())
        computed += padded_tokens(lay_out(lengths, tokens=tokens, packs=packs), lengths)
    assert used >= 0.9 * computed


def test_sequences_of_one_length_are_not_packed() -> None:
    lengths = np.full(16, 64, dtype=np.int64)
    assert all(len(row) == 1 for layout in lay_out(lengths, tokens=512, packs=True) for row in layout)


def test_a_bucket_holds_sequences_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, 50)
    for layout in lay_out(lengths, tokens=4096, packs=False):
        held = [int(lengths[row[0]]) for row in layout]
        assert min(held) >= LIKE_LENGTH * max(held)


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
