"""A derived student is the teacher minus layers, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from student_builders import tiny_llama
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from configs.errors import ConfigError, ModelError
from student_train.starts.derive import derive_student

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def assert_layers_kept(teacher: Path, student: Path, kept: tuple[int, ...]) -> None:
    theirs, ours = tensors_of(teacher), tensors_of(student)
    expected = {name: tensor for name, tensor in theirs.items() if ".layers." not in name}
    for new, old in enumerate(kept):
        prefix = f"model.layers.{old}."
        layer = {
            name.replace(prefix, f"model.layers.{new}."): tensor for name, tensor in theirs.items() if prefix in name
        }
        assert layer
        expected |= layer
    assert expected.keys() == ours.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == ours[name].dtype
        assert torch.equal(tensor, ours[name])


@pytest.mark.parametrize("tied", [True, False])
def test_kept_layers_are_the_teachers(tmp_path: Path, tied: bool) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=5, tied=tied)
    student = derive_student(teacher, tmp_path / "student", keep_layers=(0, 2, 4))
    assert_layers_kept(teacher, student, (0, 2, 4))
    model = AutoModelForCausalLM.from_pretrained(student)
    assert model.config.num_hidden_layers == 3
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_all_layers_give_the_same_logits(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=3)
    student = derive_student(teacher, tmp_path / "student", keep_layers=3)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        theirs, ours = (AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (teacher, student))
    assert torch.equal(theirs, ours)


def test_a_second_copy_of_the_weights_is_not_part_of_a_student(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=3)
    for stray in ("consolidated.safetensors", "tf_model.h5", "consolidated.00.pth", "model.onnx", "stillroom.json"):
        shutil.copy(teacher / "model.safetensors", teacher / stray)
    student = derive_student(teacher, tmp_path / "student", keep_layers=2)
    assert {path.name for path in student.iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    }  # fmt: skip


def test_companions_come_along(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher")
    student = derive_student(teacher, tmp_path / "student", keep_layers=2)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (student / name).read_bytes() == (teacher / name).read_bytes()


def test_sharded_teachers_stay_sharded(tmp_path: Path) -> None:
    whole = tiny_llama(tmp_path / "whole", layers=5)
    teacher = tmp_path / "teacher"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(teacher, max_shard_size="30KB")
    assert len(list(teacher.glob("*.safetensors"))) > 2
    student = derive_student(teacher, tmp_path / "student", keep_layers=(1, 4))
    assert_layers_kept(teacher, student, (1, 4))
    assert AutoModelForCausalLM.from_pretrained(student).config.num_hidden_layers == 2


@pytest.mark.parametrize(
    "model",
    [
        Qwen2ForCausalLM(Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=3)),
        Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, sliding_window=8)),
    ],
    ids=["qwen2", "gemma2"],
)
def test_kinds_of_attention_follow_their_layers(tmp_path: Path, model: PreTrainedModel) -> None:
    teacher = tmp_path / "teacher"
    model.save_pretrained(teacher)
    student = derive_student(teacher, tmp_path / "student", keep_layers=(1, 2, 5))
    assert_layers_kept(teacher, student, (1, 2, 5))
    kinds = model.config.layer_types
    assert len(set(kinds)) == 2
    loaded = AutoModelForCausalLM.from_pretrained(student)
    assert list(loaded.config.layer_types) == [kinds[1], kinds[2], kinds[5]]
    assert bool(torch.isfinite(loaded(torch.arange(20)[None]).logits).all())


@pytest.mark.parametrize("keep", [0, 6, (0, 5), (-1, 2), (), (2, 1)])
def test_layers_that_are_not_there_are_refused(tmp_path: Path, keep: int | tuple[int, ...]) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=5)
    with pytest.raises(ConfigError, match="keep_layers="):
        derive_student(teacher, tmp_path / "student", keep_layers=keep)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_teacher_with_missing_tensors_leaves_nothing_behind(tmp_path: Path) -> None:
    teacher = tiny_llama(tmp_path / "teacher", layers=3)
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    (teacher / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}), encoding="utf-8")
    with pytest.raises(ModelError, match="tensors of 3 layers but its config says 4"):
        derive_student(teacher, tmp_path / "student", keep_layers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
