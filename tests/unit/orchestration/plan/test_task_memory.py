"""What task trainings and their teachers hold, against modules that are really built and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModel, BertConfig

from configs.architecture import TextModel
from configs.schema import EngineSettings, TrainingSettings
from configs.task_stages import TaskStageConfig, TaskStudentConfig
from orchestration.plan.hardware import GIB
from orchestration.plan.memory import HEAD_CHUNK_BYTES, MemoryFit
from orchestration.plan.task_memory import (
    TaskSizes,
    plain_memory,
    signal_engine_memory,
    start_sizes,
    task_training_memory,
    transformer_sizes,
    word_tables_memory,
)
from student_train.models.bag import BagStudent
from student_train.models.recurrent import RecurrentStudent
from student_train.models.task_network import FORMAT

BERT = TextModel(layers=4, hidden=64, mlp=256, positions=128, labels=("a", "b"), heads=4, vocab=1000)
STAGE = {"objective": "hard_labels", "steps": 1}


def sizes_of(**start: Any) -> TaskSizes:
    student = TaskStudentConfig.model_validate({"start": start, "stages": [STAGE]})
    found = start_sizes(student.start, teacher=BERT, own=None)
    assert found is not None
    return found


def count(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def bert(**changes: Any) -> torch.nn.Module:
    sizes = {
        "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 128,
    }  # fmt: skip
    with torch.device("meta"):
        model: torch.nn.Module = AutoModel.from_config(BertConfig(**sizes | changes), add_pooling_layer=False)
    return model


def trained(
    stage: dict[str, Any] | None = None, *, of: TaskSizes | None = None, longest: int = 64, **settings: Any
) -> MemoryFit:
    return task_training_memory(
        of or transformer_sizes(BERT),
        label="worker",
        settings=TrainingSettings.model_validate({"workers": 2, "zero_stage": 0, "micro_batch_tokens": 512} | settings),
        stage=TaskStageConfig.model_validate(STAGE | (stage or {})),
        longest=longest,
        accelerator="gpu",
    )


def bytes_of(fit: MemoryFit) -> dict[str, float]:
    return {item.name: item.size_bytes for item in fit.items}


def test_parameters_are_those_of_the_models_that_are_built() -> None:
    assert transformer_sizes(BERT).parameters == pytest.approx(count(bert()), rel=0.02)
    kept = sizes_of(kind="transformer", keep_layers=2, mlp_channels=128)
    assert kept.parameters == pytest.approx(count(bert(num_hidden_layers=2, intermediate_size=128)), rel=0.02)
    shape = {"layers": 1, "hidden": 32, "heads": 2, "mlp": 64, "max_positions": 32}
    own = bert(num_hidden_layers=1, hidden_size=32, intermediate_size=64, max_position_embeddings=32)
    assert sizes_of(kind="transformer", shape=shape).parameters == pytest.approx(count(own), rel=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_networks_over_embeddings_too(cell: str) -> None:
    common = {"format": FORMAT, "task": "classification", "labels": ("a", "b"), "vocab": 1000, "embedding_size": 32}
    sizes: dict[str, Any] = {"kind": "recurrent", "cell": cell, "hidden": 24, "layers": 2}
    recurrent = RecurrentStudent.of(common | sizes)
    assert sizes_of(**sizes, embedding_size=32).parameters == pytest.approx(count(recurrent), rel=0.03)
    bag = BagStudent.of(common | {"kind": "bag", "hidden": 16, "left_out": [0]})
    assert sizes_of(kind="bag", hidden=16, embedding_size=32).parameters == pytest.approx(count(bag), rel=0.03)


def test_a_model_of_its_own_is_not_known_before_it_is_there() -> None:
    student = TaskStudentConfig.model_validate(
        {"start": {"kind": "transformer", "model": {"hub": "a/b"}}, "stages": [STAGE]}
    )
    assert start_sizes(student.start, teacher=BERT, own=None) is None
    assert start_sizes(student.start, teacher=BERT, own=BERT) == transformer_sizes(BERT)


def test_a_worker_holds_weights_gradients_and_two_moments() -> None:
    parameters = transformer_sizes(BERT).parameters
    found = bytes_of(trained())
    assert (found["weights"], found["gradients"], found["optimiser"]) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )
    split = bytes_of(trained(zero_stage=2))
    assert (split["gradients"], split["optimiser"]) == (2 * parameters, 6 * parameters)
    moved = trained(offload="optimizer", zero_stage=2)
    assert "optimiser" not in bytes_of(moved) and moved.offloaded[0].size_bytes == 6 * parameters


def test_what_is_frozen_has_no_gradients() -> None:
    sizes = transformer_sizes(BERT)
    assert bytes_of(trained({"unfrozen": 2}))["gradients"] == 4 * 2 * sizes.layer_parameters
    assert bytes_of(trained({"unfrozen": 9}))["gradients"] == 4 * sizes.parameters
    adapted = bytes_of(trained({"lora": {"rank": 2}}))
    assert 0 < adapted["gradients"] < sizes.parameters and adapted["weights"] == 4 * sizes.parameters


def test_activations_follow_the_micro_batch_the_texts_and_recomputation() -> None:
    usual = bytes_of(trained())["activations"]
    assert bytes_of(trained(micro_batch_tokens=1024))["activations"] == 2 * usual
    assert bytes_of(trained({"dtype": "bfloat16"}))["activations"] == usual / 2
    assert bytes_of(trained(gradient_checkpointing=True))["activations"] < usual / 2
    # A text that is longer than a micro-batch is one of its own, and attends to all of itself.
    assert bytes_of(trained(longest=1024))["activations"] > 2 * usual
    network = sizes_of(kind="recurrent", embedding_size=32, hidden=24)
    assert bytes_of(trained(of=network, longest=512)) == bytes_of(trained(of=network))


def test_an_engine_holds_weights_in_its_dtype_and_one_layer_of_a_batch() -> None:
    def held(dtype: str, longest: int = 64) -> dict[str, float]:
        settings = EngineSettings(count=1, cpus=1)
        return bytes_of(signal_engine_memory(BERT, settings=settings, dtype=dtype, longest=longest, accelerator="cpu"))

    assert held("float32")["weights"] == 2 * held("bfloat16")["weights"] == 4 * transformer_sizes(BERT).parameters
    assert held("float32", longest=128)["activations"] > held("float32")["activations"] > 0
    plain = plain_memory(BERT, label="plain")
    assert plain.size_bytes == pytest.approx(4 * transformer_sizes(BERT).parameters + 0.9 * GIB)


@pytest.mark.parametrize(("soft_weight", "tables"), [(0.0, 5), (5.0, 8)])
def test_hidden_tokens_have_tables_of_the_vocabulary_and_their_teacher_as_many(soft_weight: float, tables: int) -> None:
    stage = {"objective": "masked_lm", "data": ["plain"], "steps": 1, "select": "last", "soft_weight": soft_weight}
    (item,) = word_tables_memory(TaskStageConfig.model_validate(stage))
    assert (item.name, item.size_bytes) == ("logits", tables * HEAD_CHUNK_BYTES)
    assert item.arithmetic == f"{tables} x 268,435,456 B"


def test_other_stages_have_no_such_tables() -> None:
    assert word_tables_memory(TaskStageConfig.model_validate(STAGE)) == ()
