"""Calibration against plain sums in float64, written from the definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from student_builders import tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from configs.errors import DataError, ModelError
from student_train.starts.calibration import calibrate

SEQUENCES = [np.random.default_rng(seed).integers(3, 97, size=5 + 4 * seed).astype(np.int32) for seed in range(3)]


def seen_by(model: Any, modules: list[Any]) -> list[list[Tensor]]:
    """The inputs [tokens, width] of these modules, for every sequence."""
    found: list[list[Tensor]] = [[] for _ in modules]
    for at, module in enumerate(modules):
        module.register_forward_pre_hook(lambda _, args, at=at: found[at].append(args[0][0]))
    with torch.no_grad():
        for sequence in SEQUENCES:
            model(torch.from_numpy(sequence).long()[None])
    return found


def test_scores_equal_their_definitions(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=2)
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float64)
    layers, last = list(model.model.layers), model.model.norm
    watched = [*layers, last, *(layer.self_attn.o_proj for layer in layers), *(layer.mlp.down_proj for layer in layers)]
    streams = [torch.cat(parts) for parts in seen_by(model, watched)]
    found = calibrate(teacher, SEQUENCES, measure_widths=True)
    assert found.tokens == sum(map(len, SEQUENCES)) == len(streams[0])
    assert found.widths is not None
    for at, layer in enumerate(layers):
        before, after = streams[at], streams[at + 1]
        cosines = (before * after).sum(1) / before.norm(dim=1) / after.norm(dim=1)
        assert float(found.block_influence[at]) == pytest.approx(float(1 - cosines.mean()), rel=1e-4)
        for head in range(4):
            alone = torch.zeros_like(streams[3 + at])
            alone[:, 8 * head : 8 * head + 8] = streams[3 + at][:, 8 * head : 8 * head + 8]
            length = (alone @ layer.self_attn.o_proj.weight.T).norm(dim=1).mean().item()
            assert float(found.widths.heads[at, head]) == pytest.approx(length, rel=1e-4)
        for channel in range(48):
            added = streams[5 + at][:, channel, None] * layer.mlp.down_proj.weight[:, channel]
            assert float(found.widths.channels[at, channel]) == pytest.approx(added.norm(dim=1).mean().item(), rel=1e-4)
    for name, stream, norm in (
        ("model.layers.0.input_layernorm.weight", streams[0], layers[0].input_layernorm),
        ("model.norm.weight", streams[2], last),
    ):
        normalised = stream / stream.square().mean(dim=1, keepdim=True).sqrt()
        means = found.widths.norms[name]
        torch.testing.assert_close(means.squares, normalised.square().mean(dim=0), rtol=1e-4, atol=1e-6)
        # The teacher's own norm adds an epsilon to the mean square.
        outputs = (normalised * norm.weight).abs().mean(dim=0)
        torch.testing.assert_close(means.outputs, outputs.detach(), rtol=1e-3, atol=1e-5)
    assert len(found.widths.norms) == 5


def test_the_same_sequences_give_the_same_numbers(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=2)
    first, second = (calibrate(teacher, iter(SEQUENCES), measure_widths=True) for _ in range(2))
    assert first.widths is not None and second.widths is not None
    assert torch.equal(first.block_influence, second.block_influence)
    assert torch.equal(first.widths.heads, second.widths.heads)
    assert torch.equal(first.widths.channels, second.widths.channels)


def test_layers_of_any_decoder_are_measured_but_not_its_widths(tmp_path: Path) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path)
    found = calibrate(tmp_path, SEQUENCES, measure_widths=False)
    assert found.widths is None
    assert bool((found.block_influence > 0).all())
    with pytest.raises(ModelError, match=r"mixtral: .*down_proj.*: set keep_layers alone"):
        calibrate(tmp_path, SEQUENCES, measure_widths=True)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=1)
    with pytest.raises(DataError, match="no tokens to calibrate teacher on"):
        calibrate(teacher, [], measure_widths=False)
