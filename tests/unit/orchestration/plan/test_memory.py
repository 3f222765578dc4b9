"""What a GPU or a process holds, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from plan_builders import LLAMA_70B, PARAMETERS, SHAPE, planned, sizes

from configs.schema import EngineSettings, TrainingSettings
from configs.stages import StageConfig
from orchestration.plan import memory
from orchestration.plan.hardware import GIB
from orchestration.plan.memory import (
    activation_bytes,
    engine_memory,
    kv_tokens,
    stage_layers,
    stage_parameters,
    training_memory,
)

KD = StageConfig(objective="kd", steps=1)


def test_the_hand_count_of_parameters_is_right() -> None:
    assert SHAPE.parameters == PARAMETERS


def test_engine_memory_by_hand() -> None:
    settings = EngineSettings(tensor_parallel=2, kv_cache_gib=0.5, max_batched_tokens=1024, max_model_len=512)
    fit = engine_memory(planned(), label="x", key="k", settings=settings, dtype="bfloat16")
    assert sizes(fit) == {
        "weights": PARAMETERS * 2 / 2,
        "KV cache": GIB / 2,
        "logits": 1024 * 1000 * 4,
        "activations": 1024 * (4 * 64 + 3 * 128 / 2) * 2,
        "runtime": 3 * GIB,
    }
    # 2 x 4 layers x 1 head x 8 wide x 2 B = 128 B a token: half a GiB holds 4,194,304 tokens, 8,192 rows of 512.
    assert "8192 sequences of max_model_len 512" in fit.items[1].arithmetic
    assert fit.total_bytes == sum(sizes(fit).values())


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (4, 1, (4,)), (4, 2, (2, 2)), (5, 2, (3, 2)), (9, 4, (2, 2, 3, 2)), (10, 4, (2, 3, 3, 2)), (11, 4, (3, 3, 3, 2)),
        (3, 3, (1, 1, 1)),
    ],
)  # fmt: skip
def test_layers_are_dealt_to_stages_as_the_engine_deals_them(
    layers: int, stages: int, expected: tuple[int, ...]
) -> None:
    assert stage_layers(layers, stages=stages) == expected


def test_the_stages_of_a_pipeline_by_hand() -> None:
    # A layer has (PARAMETERS - 2 x 64,000 - 64) / 4 parameters; the embedding and the head have 64,000 each.
    layer = (PARAMETERS - 2 * 64_000 - 64) // 4
    assert stage_parameters(SHAPE, stages=1) == (PARAMETERS,)
    assert stage_parameters(SHAPE, stages=2) == (64_000 + 2 * layer, 2 * layer + 64_000 + 64)
    assert stage_parameters(SHAPE, stages=3) == (64_000 + layer, 2 * layer, layer + 64_000 + 64)
    tied = SHAPE.model_copy(update={"tied_embeddings": True})
    assert stage_parameters(tied, stages=2) == stage_parameters(SHAPE, stages=2)
    assert sum(stage_parameters(SHAPE, stages=4)) == PARAMETERS


def test_an_engine_of_stages_is_planned_with_the_stage_that_holds_most() -> None:
    settings = EngineSettings(
        tensor_parallel=2, pipeline_parallel=2, kv_cache_gib=0.5, max_batched_tokens=1024, max_model_len=512
    )
    fit = engine_memory(planned(), label="x", key="runtime.teacher_engine", settings=settings, dtype="bfloat16")
    last = stage_parameters(SHAPE, stages=2)[1]
    assert sizes(fit)["weights"] == last * 2 / 2 and sizes(fit)["logits"] == 1024 * 1000 * 4
    assert "of stage 2 of pipeline_parallel 2" in fit.items[0].arithmetic
    # Two layers a stage: half a GiB holds twice the tokens that it holds where one GPU keeps all four.
    assert "16384 sequences of max_model_len 512" in fit.items[1].arithmetic
    assert fit.cure.startswith("raise runtime.teacher_engine.tensor_parallel=2 or pipeline_parallel=2, or lower")
    # Of three stages with nine layers the last has three and the head: no stage is larger. With ten the middle has
    # four, but less than three layers, head and logits.
    few = EngineSettings(pipeline_parallel=3, max_batched_tokens=1, max_model_len=1)
    deep = SHAPE.model_copy(update={"layers": 10, "vocab": 100})
    middle = engine_memory(planned(deep), label="x", key="k", settings=few, dtype="bfloat16")
    assert sizes(middle)["weights"] == stage_parameters(deep, stages=3)[1] * 2 and "logits" not in sizes(middle)
    # Tokens are those that the stage with four layers has room for.
    assert kv_tokens(deep, settings=few, dtype="bfloat16") == GIB // (2 * 4 * 2 * 8 * 2)


def test_a_large_teacher_by_hand() -> None:
    settings = EngineSettings(tensor_parallel=4, kv_cache_gib=30, max_batched_tokens=2048, max_model_len=4096)
    fit = engine_memory(planned(LLAMA_70B), label="x", key="k", settings=settings, dtype="bfloat16")
    # 70,553,706,496 parameters x 2 B / 4 GPUs = 35.28 GB; 2,048 x 128,256 x 4 B = 1.05 GB of logits.
    assert sizes(fit)["weights"] == 35_276_853_248
    assert sizes(fit)["logits"] == 1_050_673_152
    # 2 x 80 layers x 2 heads x 128 x 2 B = 81,920 B a token.
    assert kv_tokens(LLAMA_70B, settings=settings, dtype="bfloat16") == 30 * GIB // 81_920
    assert fit.fits(memory_gib=80)
    assert not fit.fits(memory_gib=64)


@pytest.mark.parametrize(
    ("quantization", "per_weight"), [(None, 2.0), ("fp8", 1.0), ("awq", 0.56), ("unheard-of", 2.0)]
)
def test_quantised_weights_are_smaller(quantization: str | None, per_weight: float) -> None:
    fit = engine_memory(
        planned(), label="x", key="k", settings=EngineSettings(), dtype="bfloat16", quantization=quantization
    )
    assert sizes(fit)["weights"] == pytest.approx(PARAMETERS * per_weight)


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "optimiser"),
    [(0, 2.0, 4.0, 12.0), (1, 2.0, 4.0, 12 / 8), (2, 2.0, 4 / 8, 12 / 8), (3, 2 / 8, 4 / 8, 12 / 8)],
)
def test_each_zero_stage_splits_one_thing_more(zero: int, weights: float, gradients: float, optimiser: float) -> None:
    settings = TrainingSettings.model_validate({"workers": 8, "zero_stage": zero})
    found = sizes(training_memory(planned(), label="x", settings=settings, stage=KD))
    assert found["weights"] == pytest.approx(PARAMETERS * weights)
    assert found["gradients"] == pytest.approx(PARAMETERS * gradients)
    assert found["optimiser"] == pytest.approx(PARAMETERS * optimiser)
    assert ("gathered" in found) == (zero == 3)


@pytest.mark.parametrize(("zero", "state"), [(0, 8), (2, 12 / 2)])
def test_float32_keeps_a_second_copy_only_when_split(zero: int, state: float) -> None:
    settings = TrainingSettings.model_validate({"workers": 2, "zero_stage": zero})
    stage = KD.model_copy(update={"dtype": "float32"})
    found = sizes(training_memory(planned(), label="x", settings=settings, stage=stage))
    assert found["weights"] == PARAMETERS * 4
    assert found["optimiser"] == PARAMETERS * state


def test_training_workspace_by_hand() -> None:
    settings = TrainingSettings(workers=2, zero_stage=3, micro_batch_tokens=100)
    found = sizes(training_memory(planned(), label="x", settings=settings, stage=KD))
    # A layer and token: 2 B x (8 x 64 + 2 x (8 + 2 x 2) x 8 + 4 x 128) + 8 B x 64 = 2 x 1,216 + 512 = 2,944 B.
    assert activation_bytes(SHAPE, dtype="bfloat16") == 4 * 2_944
    assert found["activations"] == 100 * 4 * 2_944
    assert found["head"] == 3 * 256 * 2**20 + 1000 * 64 * 4
    assert found["gathered"] == 2 * 64_000 * 2
    assert found["buckets"] == 2 * PARAMETERS * 4


def test_tied_embeddings_count_once_in_a_layer_share() -> None:
    tied = SHAPE.model_copy(update={"tied_embeddings": True, "vocab": 10})
    settings = TrainingSettings(workers=2, zero_stage=3)
    # 34,944 parameters of a layer outweigh 10 x 64 of the embedding.
    assert sizes(training_memory(planned(tied), label="x", settings=settings, stage=KD))["gathered"] == 2 * 34_944 * 2


def test_constants_are_those_of_the_trainer() -> None:
    head = pytest.importorskip("student_train.losses.head")
    assert head.CPU_CHUNK_BYTES == memory.HEAD_CHUNK_BYTES


def test_what_is_offloaded_and_recomputed_takes_no_room_on_the_gpu() -> None:
    def held(**settings: object) -> dict[str, float]:
        training = TrainingSettings.model_validate({"workers": 2, "zero_stage": 3} | settings)
        return sizes(training_memory(planned(), label="x", settings=training, stage=KD))

    plain, optimiser, everything = held(), held(offload="optimizer"), held(offload="all")
    assert plain.keys() - optimiser.keys() == {"optimiser"}
    assert plain.keys() - everything.keys() == {"optimiser", "weights"}
    assert {name: plain[name] for name in everything} == everything
    layers, recomputed = SHAPE.layers, held(gradient_checkpointing=True)["activations"]
    tokens = TrainingSettings().micro_batch_tokens
    assert recomputed == plain["activations"] / layers + tokens * layers * 2 * SHAPE.hidden
