"""Narrower students: cutting parts that do nothing changes nothing, and keeping everything changes no byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from configs.errors import ConfigError, ModelError
from configs.starts import InitConfig
from student_train.starts.calibration import Calibration, calibrate
from student_train.starts.derive import check_widths, derive_student

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    # So small that a norm over fewer dimensions is exact.
    "rms_norm_eps": 1e-12,
}
PLAIN = {key: value for key, value in SIZES.items() if key != "head_dim"}
UNTIED = {"tie_word_embeddings": False}
TEACHERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **UNTIED, attention_bias=True, mlp_bias=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**PLAIN)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZES)),
    "gemma untied": lambda: GemmaForCausalLM(GemmaConfig(**SIZES, **UNTIED)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, sliding_window=8)),
    "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**PLAIN)),
}
SEQUENCES = [np.random.default_rng(seed).integers(3, 64, size=20) for seed in range(3)]
IDS = torch.from_numpy(np.random.default_rng(9).integers(3, 64, size=(2, 24)))


def made(path: Path, name: str, *, seed: int = 0) -> Path:
    """A random teacher whose every weight, biases and gains included, is away from its usual start."""
    torch.manual_seed(seed)
    model = TEACHERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(path)
    return path


def test_a_narrow_student_has_its_teachers_positions(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SIZES, max_position_embeddings=512)).save_pretrained(tmp_path)
    teacher, student = check_widths(tmp_path, InitConfig(mlp_channels=20))
    assert teacher.max_positions == student.max_positions == 512


def edit(path: Path, change: Callable[[str, Tensor], None]) -> None:
    """Change the tensors of a saved teacher in place."""
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            change(name, parameter)
    model.save_pretrained(path)


def logits(path: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


def measured(path: Path) -> Calibration:
    return calibrate(path, SEQUENCES, measure_widths=True)


def random_subsets(size: int, count: int) -> Callable[[str], Tensor]:
    """For each layer, by a tensor's name, `count` of `size` numbers, always the same."""

    def of(name: str) -> Tensor:
        layer = int(name.split(".")[2])
        return torch.from_numpy(np.random.default_rng(layer).choice(size, count, replace=False))

    return of


@pytest.mark.parametrize("name", TEACHERS)
def test_cutting_what_does_nothing_changes_nothing(tmp_path: Path, name: str) -> None:
    teacher = made(tmp_path / "teacher", name)
    hidden = 24 if name == "qwen2" else 30
    groups, channels = random_subsets(2, 1), random_subsets(40, 15)
    silent = torch.from_numpy(np.random.default_rng(7).choice(48, 48 - hidden, replace=False))

    def silence(tensor: str, weight: Tensor) -> None:
        if tensor.endswith("embed_tokens.weight"):
            weight[:, silent] = 0.0
        elif "o_proj" in tensor or "down_proj" in tensor:
            weight[silent] = 0.0
        if tensor.endswith("o_proj.weight"):
            # Head by head: three of them, of eight columns each, are one group.
            weight.view(48, 2, 24)[:, groups(tensor)] = 0.0
        elif tensor.endswith("down_proj.weight"):
            weight[:, channels(tensor)] = 0.0

    edit(teacher, silence)
    shallow = derive_student(teacher, tmp_path / "shallow", keep_layers=(0, 2))
    student = derive_student(
        teacher,
        tmp_path / "student",
        keep_layers=(0, 2),
        attention_heads=3,
        mlp_channels=25,
        hidden_size=hidden,
        calibration=measured(teacher),
    )
    expected = logits(shallow)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(logits(student), expected, rtol=0, atol=2e-5)
    config = AutoModelForCausalLM.from_pretrained(student).config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (3, 1, 8)
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (hidden, 25, 2)


def test_groups_keep_their_best_heads(tmp_path: Path) -> None:
    teacher = made(tmp_path / "teacher", "qwen3")
    heads = random_subsets(3, 1)

    def silence(tensor: str, weight: Tensor) -> None:
        if tensor.endswith("o_proj.weight"):
            # One head of each group, a different one in every layer.
            weight.view(48, 2, 3, 8)[:, 0, heads(tensor)] = 0.0
            weight.view(48, 2, 3, 8)[:, 1, 2 - heads(tensor)] = 0.0

    edit(teacher, silence)
    student = derive_student(teacher, tmp_path / "student", attention_heads=4, calibration=measured(teacher))
    torch.testing.assert_close(logits(student), logits(teacher), rtol=0, atol=2e-5)
    config = AutoModelForCausalLM.from_pretrained(student).config
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)


@pytest.mark.parametrize("name", TEACHERS)
def test_keeping_everything_changes_no_byte(tmp_path: Path, name: str) -> None:
    teacher = made(tmp_path / "teacher", name)
    student = derive_student(
        teacher,
        tmp_path / "student",
        keep_layers=3,
        attention_heads=6,
        mlp_channels=40,
        hidden_size=48,
        calibration=measured(teacher),
    )
    assert (student / "model.safetensors").read_bytes() == (teacher / "model.safetensors").read_bytes()


def test_shards_are_cut_one_by_one(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", "gemma2")
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16).save_pretrained(whole)
    AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16).save_pretrained(sharded, max_shard_size="20KB")
    calibration = measured(whole)
    students = [
        derive_student(teacher, tmp_path / f"student-{teacher.name}", hidden_size=30, calibration=calibration)
        for teacher in (whole, sharded)
    ]
    assert len(list(students[1].glob("*.safetensors"))) > 2
    ours, theirs = ({k: v for p in s.glob("*.safetensors") for k, v in load_file(p).items()} for s in students)
    assert ours.keys() == theirs.keys()
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_dimensions_and_gains_follow_the_norms_that_stay(tmp_path: Path) -> None:
    teacher = made(tmp_path / "teacher", "llama")

    def shout(tensor: str, weight: Tensor) -> None:
        if tensor.startswith("model.layers.1.") and tensor.endswith("norm.weight"):
            weight[:24] = 50.0

    edit(teacher, shout)
    calibration = measured(teacher)
    student = derive_student(teacher, tmp_path / "student", keep_layers=(0, 2), hidden_size=30, calibration=calibration)
    assert calibration.widths is not None
    norms = calibration.widths.norms
    kept, among_all = (
        torch.stack([norms[name].outputs for name in names]).sum(0).topk(30).indices.sort().values
        for names in ([name for name in norms if ".1." not in name], norms)
    )
    assert not torch.equal(kept, among_all)
    theirs, ours = load_file(teacher / "model.safetensors"), load_file(student / "model.safetensors")
    for name, norm in norms.items():
        if ".1." not in name:
            factor = norm.squares[kept].mean().sqrt()
            assert abs(factor - 1.0) > 0.01
            gains = ours[name.replace(".2.", ".1.")].double()
            torch.testing.assert_close(gains, theirs[name][kept].double() * factor, rtol=1e-6, atol=0)
    assert torch.equal(ours["model.embed_tokens.weight"], theirs["model.embed_tokens.weight"][:, kept])


@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        (lambda: Phi3ForCausalLM(Phi3Config(**PLAIN)), "mlp.gate_up_proj.weight"),
        (lambda: MixtralForCausalLM(MixtralConfig(**PLAIN, num_local_experts=2)), "block_sparse_moe.experts.0.w1.weight"),
        (lambda: Olmo2ForCausalLM(Olmo2Config(**PLAIN)), r"self_attn.k_norm.weight \[16\]"),
    ],
    ids=["fused", "experts", "norm over all heads"],
)  # fmt: skip
def test_unknown_tensors_are_named_before_anything_is_written(
    tmp_path: Path, model: Callable[[], Any], tensor: str
) -> None:
    teacher = tmp_path / "teacher"
    model().save_pretrained(teacher)
    calibration = measured(made(tmp_path / "other", "llama"))
    with pytest.raises(ModelError, match=f"tensor model.layers.0.{tensor}.* cannot be made narrower"):
        derive_student(teacher, tmp_path / "student", mlp_channels=20, calibration=calibration)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "teacher"]
    assert derive_student(teacher, tmp_path / "student", keep_layers=2).exists()


def test_a_qwen2_that_could_not_be_served_is_refused(tmp_path: Path) -> None:
    teacher = made(tmp_path / "teacher", "qwen2")
    with pytest.raises(ModelError, match="hidden_size = attention_heads x 8 to be served, not 24 and 6 heads"):
        check_widths(teacher, InitConfig(hidden_size=24))


def test_widths_need_a_calibration_of_this_teacher(tmp_path: Path) -> None:
    teacher = made(tmp_path / "teacher", "llama")
    with pytest.raises(ConfigError, match="calibrate it first"):
        derive_student(teacher, tmp_path / "student", mlp_channels=20)
    layers_only = calibrate(teacher, SEQUENCES, measure_widths=False)
    with pytest.raises(ConfigError, match="calibrate it first"):
        derive_student(teacher, tmp_path / "student", mlp_channels=20, calibration=layers_only)
    with pytest.raises(ConfigError, match="mlp_channels=41 but the teacher has 40"):
        derive_student(teacher, tmp_path / "student", mlp_channels=41, calibration=measured(teacher))
    assert not (tmp_path / "student").exists()
