"""Adapters: quiet at the start, merged without a difference, and away from the head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from student_builders import tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM

from configs.errors import ConfigError
from configs.stages import LoraConfig
from student_train.models.adapters import attach_adapters, merge_adapters
from student_train.models.decoder import Decoder, load_decoder

IDS = torch.arange(3, 27).view(2, 12)
ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def adapted(folder: Path, lora: LoraConfig, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Decoder:
    decoder = load_decoder(tiny_llama(folder / "start", layers=2, tied=tied), dtype=dtype)
    torch.manual_seed(5)
    attach_adapters(decoder.model, lora)
    return decoder


def weights_of(decoder: Decoder) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in decoder.model.named_parameters()}


def stir(decoder: Decoder) -> None:
    with torch.no_grad():
        for name, parameter in decoder.model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape))


@pytest.mark.parametrize("tied", [True, False])
def test_merged_adapters_say_the_same(tmp_path: Path, tied: bool) -> None:
    lora = LoraConfig(rank=4, alpha=6.0)
    decoder = adapted(tmp_path, lora, tied=tied)
    stir(decoder)
    merged = merge_adapters(weights_of(decoder), lora)
    # As the export does: the weights of the plain model, saved by the one with adapters.
    decoder.model.save_pretrained(tmp_path / "student", state_dict=dict(merged))
    plain, start = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("student", "start"))
    assert merged.keys() == dict(plain.named_parameters()).keys()
    with torch.no_grad():
        ours, theirs, before = (model(IDS).logits for model in (decoder.model.eval(), plain, start))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert float((ours - before).abs().max()) > 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_untouched_adapters_leave_every_weight(tmp_path: Path, dtype: torch.dtype) -> None:
    lora = LoraConfig(rank=3)
    decoder = adapted(tmp_path, lora, dtype=dtype)
    plain = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=dtype).named_parameters())
    merged = merge_adapters(weights_of(decoder), lora)
    assert merged.keys() == plain.keys()
    assert all(torch.equal(merged[name], weight) for name, weight in plain.items())
    assert {parameter.dtype for parameter in decoder.model.parameters()} == {dtype}


def test_the_merge_is_the_formula(tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, alpha=6.0, modules=("q_proj",))
    decoder = adapted(tmp_path, lora, dtype=torch.bfloat16)
    stir(decoder)
    weights = weights_of(decoder)
    name = "model.layers.1.self_attn.q_proj"
    base, down, up = (
        weights[f"{name}.{part}.weight"].double() for part in ("base_layer", "lora_A.default", "lora_B.default")
    )
    merged = merge_adapters(weights, lora)[f"{name}.weight"]
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(merged, (base + 1.5 * up @ down).to(torch.bfloat16), rtol=2**-8, atol=0)


@pytest.mark.parametrize(("modules", "expected"), [("all-linear", ALL), (("v_proj", "up_proj"), {"v_proj", "up_proj"})])
def test_adapters_sit_where_they_are_asked_for_and_learn_alone(
    tmp_path: Path, modules: str | tuple[str, ...], expected: set[str]
) -> None:
    decoder = adapted(tmp_path, LoraConfig(modules=modules), tied=False)
    trained = {name for name, parameter in decoder.model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[4] for name in trained} == expected
    assert len(trained) == 2 * 2 * len(expected)
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert not decoder.head.requires_grad


def test_the_start_is_drawn_from_torchs_generator(tmp_path: Path) -> None:
    first, second = (weights_of(adapted(tmp_path, LoraConfig(rank=2))) for _ in range(2))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "proj", "w1"])
def test_modules_that_are_not_there_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"lora.modules names {name}, .*choose from down_proj, gate_proj"):
        adapted(tmp_path, LoraConfig(modules=("q_proj", name)), tied=False)
