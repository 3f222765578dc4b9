"""Placement, memory and fill time against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from configs import ConfigError
from configs.schema import DistillConfig, EngineSettings, ModelShape, TrainingSettings
from configs.stages import StageConfig
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan import memory
from orchestration.plan.duration import FillTime, TeacherWork, expected_seconds
from orchestration.plan.memory import GIB, MemoryFit, activation_bytes, engine_memory, kv_tokens, training_memory
from orchestration.plan.placement import Bundle, Hardware, Placement, memory_fit, plan_placement, render_placement

SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
"""64 x 8 x (2 x 8 + 2 x 2) = 10,240 attention, 24,576 MLP, 128 norms: 34,944 a layer; 2 x 64,000 + 64 beside them."""

PARAMETERS = 4 * 34_944 + 128_000 + 64
LLAMA_70B = ModelShape(layers=80, hidden=8192, heads=64, kv_heads=8, mlp=28672, vocab=128256, max_positions=131072)
NODE = Hardware("gpu", nodes=1, gpus_per_node=8, gpu_memory_gib=80.0)
KD = StageConfig(objective="kd", steps=1)


def planned(shape: ModelShape = SHAPE, *, assumed: bool = False) -> PlannedShape:
    return PlannedShape("model", shape, assumed=assumed)


def experiment(**runtime: Any) -> DistillConfig:
    blocks = {
        "name": "test",
        "teacher": {"model": {"path": "teacher"}},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
        "students": {"kd": {"init": {"keep_layers": 2}, "stages": [{"objective": "kd", "steps": 10}]}},
        "runtime": runtime,
    }
    return DistillConfig.model_validate(blocks)


def place(
    hardware: Hardware, shape: ModelShape = SHAPE, *, student: ModelShape | None = SHAPE, **runtime: Any
) -> Placement:
    students = {"kd": planned(student) if student else None}
    return plan_placement(experiment(**runtime), teacher=planned(shape), students=students, hardware=hardware)


def refusal(hardware: Hardware, shape: ModelShape = SHAPE, **runtime: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        place(hardware, shape, **runtime)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def places(placement: Placement, role: str) -> list[tuple[int, tuple[int, ...]]]:
    return [(bundle.node, bundle.gpus) for bundle in placement.bundles if bundle.role == role]


def sizes(fit: MemoryFit) -> dict[str, float]:
    return {item.name: item.size_bytes for item in fit.items}


def test_the_hand_count_of_parameters_is_right() -> None:
    assert SHAPE.parameters == PARAMETERS


def test_engine_groups_stay_on_a_node_and_are_dealt_in_turn() -> None:
    placement = place(Hardware("gpu", 2, 8), teacher_engine={"count": 4, "tensor_parallel": 4})
    assert places(placement, "teacher engine") == [
        (0, (0, 1, 2, 3)),
        (1, (0, 1, 2, 3)),
        (0, (4, 5, 6, 7)),
        (1, (4, 5, 6, 7)),
    ]


def test_workers_fill_node_after_node() -> None:
    placement = place(Hardware("gpu", 2, 2), training={"workers": 3})
    assert places(placement, "training worker") == [(0, (0,)), (0, (1,)), (1, (0,))]


def test_phases_reuse_the_gpus() -> None:
    placement = place(NODE, teacher_engine={"count": 8}, student_engine={"count": 8}, training={"workers": 8})
    whole_node = [(0, (gpu,)) for gpu in range(8)]
    for role in ("teacher engine", "training worker", "student engine"):
        assert places(placement, role) == whole_node


@pytest.mark.parametrize(("nodes", "gpus", "width"), [(1, 8, 1), (1, 8, 2), (2, 8, 8), (3, 4, 2), (2, 5, 2)])
def test_no_gpu_is_given_to_two_bundles_of_a_phase(nodes: int, gpus: int, width: int) -> None:
    count = nodes * (gpus // width)
    placement = place(Hardware("gpu", nodes, gpus), teacher_engine={"count": count, "tensor_parallel": width})
    given = [(node, gpu) for node, group in places(placement, "teacher engine") for gpu in group]
    assert len(given) == len(set(given)) == count * width
    assert all(node < nodes and gpu < gpus for node, gpu in given)


def test_an_engine_of_a_student_is_planned_in_the_widest_dtype_that_it_runs_in() -> None:
    config = experiment()
    stages = [{"objective": "kd", "steps": 1, "dtype": "float32"}, {"objective": "kd", "steps": 1}]
    student = config.students["kd"].model_copy(update={"stages": tuple(map(StageConfig.model_validate, stages))})
    config = config.model_copy(update={"students": {"kd": student}})
    fits = {
        fit.label: sizes(fit)["weights"] for fit in memory_fit(config, teacher=planned(), students={"kd": planned()})
    }
    assert fits["student engine, kd"] == 4 * PARAMETERS
    assert fits["teacher engine"] == 2 * PARAMETERS


def test_on_cpus_nothing_has_a_gpu() -> None:
    placement = place(Hardware("cpu", cpus=2))
    assert placement.bundles == (
        Bundle("teacher engine", 0, 0, ()),
        Bundle("training worker", 0, 0, ()),
        Bundle("training worker", 1, 0, ()),
        Bundle("student engine", 0, 0, ()),
    )


@pytest.mark.parametrize(
    ("hardware", "runtime", "words"),
    [
        (
            NODE,
            {"teacher_engine": {"count": 3, "tensor_parallel": 4}},
            ["runtime.teacher_engine.count=3", "tensor_parallel=4", "1 nodes x 8 GPUs", "set count to 2 or less"],
        ),
        (
            # There are 16 GPUs, but a group of 8 would have to cross nodes.
            Hardware("gpu", 4, 4),
            {"teacher_engine": {"tensor_parallel": 8}},
            ["runtime.teacher_engine.tensor_parallel=8", "4 GPUs of a node", "runtime.gpus_per_node", "lower it"],
        ),
        (NODE, {"training": {"workers": 9}}, ["runtime.training.workers=9", "8 GPUs", "set it to 8 or less"]),
        (
            Hardware("gpu", 1, 1),
            {"student_engine": {"count": 2}, "training": {"workers": 1}},
            ["runtime.student_engine.count=2", "set count to 1 or less"],
        ),
        (
            NODE,
            {"teacher_engine": {"tensor_parallel": 3}},
            ["runtime.teacher_engine.tensor_parallel=3", "heads=8", "kv_heads=2", "set it to one of 1, 2, 4"],
        ),
        (
            NODE,
            {"student_engine": {"tensor_parallel": 5}},
            ["runtime.student_engine.tensor_parallel=5", "students.kd", "set it to one of 1, 2, 4, 8"],
        ),
        (
            Hardware("cpu", cpus=8),
            {"teacher_engine": {"tensor_parallel": 2}},
            ["runtime.teacher_engine.tensor_parallel=2", "needs GPUs", "set it to 1"],
        ),
        (
            Hardware("cpu", cpus=8),
            {"teacher_engine": {"max_batched_tokens": 1000}},
            ["runtime.teacher_engine.max_batched_tokens=1000", "max_model_len=1024", "raise the first"],
        ),
        (
            Hardware("cpu", cpus=2),
            {"teacher_engine": {"count": 2}},
            ["runtime.teacher_engine.count=2", "cpus=2", "needs 4 CPUs but there are 2"],
        ),
        (
            Hardware("cpu", cpus=2),
            {"training": {"workers": 4, "cpus_per_worker": 0.75}},
            ["runtime.training.workers=4", "cpus_per_worker=0.75", "needs 3 CPUs but there are 2"],
        ),
        (
            NODE,
            # 512 bytes a token and GPU: 2 x 4 layers x 2 heads x 8 x 2 B. 2 MiB hold 8,192 of them.
            {"teacher_engine": {"kv_cache_gib": 2 / 1024, "max_model_len": 8193}},
            ["runtime.teacher_engine.kv_cache_gib=0.00195312", "holds 8192 tokens", "max_model_len=8193"],
        ),
    ],
)
def test_what_cannot_be_placed_names_keys_values_and_cure(
    hardware: Hardware, runtime: dict[str, Any], words: list[str]
) -> None:
    message = refusal(hardware, **runtime)
    for word in words:
        assert word in message


def test_more_workers_than_key_value_heads_repeat_them() -> None:
    settings = EngineSettings(tensor_parallel=8, kv_cache_gib=1.0)
    # One of two heads is kept whole by every GPU: 2 x 4 layers x 1 head x 8 x 2 B = 128 B a token.
    assert kv_tokens(SHAPE, settings=settings, dtype="bfloat16") == GIB // 128
    assert place(NODE, teacher_engine={"tensor_parallel": 8})


def test_kept_layers_must_exist() -> None:
    config = experiment()
    students = {"kd": planned()}
    for keep, words in ((9, "init.keep_layers=9 but the teacher has 4 layers"), ((0, 4), "names layer 4")):
        init = config.students["kd"].init.model_copy(update={"keep_layers": keep})
        changed = config.model_copy(
            update={"students": {"kd": config.students["kd"].model_copy(update={"init": init})}}
        )
        with pytest.raises(ConfigError, match=f"students.kd.*{words}"):
            plan_placement(changed, teacher=planned(), students=students, hardware=NODE)


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
    fused = pytest.importorskip("student_train.losses.fused")
    assert fused.CPU_CHUNK_BYTES == memory.HEAD_CHUNK_BYTES


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


def test_an_engine_that_does_not_fit_names_the_arithmetic_and_the_keys() -> None:
    message = refusal(
        NODE, LLAMA_70B, teacher_engine={"tensor_parallel": 1, "kv_cache_gib": 30, "max_batched_tokens": 2048}
    )
    for words in (
        "teacher engine needs",
        "weights 131.4",
        "76.0 of runtime.gpu_memory_gib=80",
        "raise runtime.teacher_engine.tensor_parallel=1",
        "kv_cache_gib=30",
    ):
        assert words in message


@pytest.mark.parametrize(("zero", "cure"), [(0, "raise zero_stage=0 or workers=8"), (3, "raise workers=8")])
def test_a_student_that_does_not_fit_names_the_cure(zero: int, cure: str) -> None:
    big = {"teacher_engine": {"tensor_parallel": 8}, "student_engine": {"tensor_parallel": 8}}
    with pytest.raises(ConfigError) as caught:
        place(NODE, LLAMA_70B, student=LLAMA_70B, training={"workers": 8, "zero_stage": zero}, **big)
    assert "training worker, kd needs" in str(caught.value)
    assert f"in runtime.training {cure}, set gradient_checkpointing: true, or lower micro_batch_tokens=4096" in str(
        caught.value
    )


def test_the_costliest_stage_is_planned() -> None:
    config = experiment()
    stages = [{"objective": "kd", "steps": 1}, {"objective": "kd", "steps": 1, "dtype": "float32"}]
    student = {"init": {"keep_layers": 2}, "stages": stages}
    config = DistillConfig.model_validate(config.model_dump() | {"students": {"kd": student}})
    fits = plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=NODE).fits
    assert [fit.label for fit in fits] == ["teacher engine", "training worker, kd", "student engine, kd"]
    assert sizes(fits[1])["weights"] == PARAMETERS * 4


def test_memory_is_not_a_limit_on_cpus() -> None:
    placement = place(Hardware("cpu", gpu_memory_gib=1.0, cpus=2), teacher_engine={"kv_cache_gib": 500.0})
    assert not placement.fits[0].fits(memory_gib=1.0)


def test_a_student_of_unknown_shape_is_noted_and_not_checked() -> None:
    placement = place(NODE, student=None)
    assert [fit.label for fit in placement.fits] == ["teacher engine"]
    assert placement.notes == (
        "students.kd: its model is not at hand and has no shape block, so its memory was not checked",
    )


@pytest.mark.parametrize(("gpus", "fits"), [(6, True), (5, False)])
def test_rollouts_need_gpus_beside_those_of_the_group(gpus: int, fits: bool) -> None:
    """Two workers, two groups of one teacher, two student engines: all of them live at once."""
    runtime = {
        "training": {"workers": 2},
        "teacher_engine": {"count": 1, "tensor_parallel": 2},
        "student_engine": {"count": 2},
    }
    raw = experiment(**runtime).model_dump()
    raw["students"]["kd"]["stages"] = [{"objective": "minillm", "rollout": {"count": 1}}]
    config, hardware = DistillConfig.model_validate(raw), Hardware("gpu", 1, gpus, 80.0)
    if fits:
        plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)
        return
    said = r"on 6 GPUs at once: runtime.training.workers=2, 2 of runtime.teacher_engine .* but there are 5"
    with pytest.raises(ConfigError, match=said):
        plan_placement(config, teacher=planned(), students={"kd": planned()}, hardware=hardware)


def test_gpus_that_no_group_can_use_are_noted() -> None:
    placement = place(Hardware("gpu", 1, 6), teacher_engine={"tensor_parallel": 4})
    assert any("tensor_parallel=4 leaves 2 GPUs" in note for note in placement.notes)


def fill(
    shape: ModelShape = LLAMA_70B, *, accelerator: str = "gpu", read: int = 0, written: int = 0, **settings: Any
) -> FillTime:
    return expected_seconds(
        planned(shape),
        work=TeacherWork(read, written),
        settings=EngineSettings(**settings),
        accelerator=accelerator,
        dtype="bfloat16",
    )


def test_nothing_to_ask_takes_no_time() -> None:
    assert fill().seconds == 0.0
    assert fill().gpu_hours == 0.0


def test_gpu_reading_by_hand() -> None:
    # 312e12 x 0.4 x 4 GPUs / (2 x 70,553,706,496) = 3,538 tokens/s an engine; two engines; 60 s of start.
    found = fill(read=7_076_000, count=2, tensor_parallel=4)
    assert found.read_rate == pytest.approx(7_076, rel=1e-3)
    assert found.seconds == pytest.approx(60 + 1000, rel=1e-3)
    assert found.gpu_hours == pytest.approx(found.seconds * 8 / 3600)


def test_gpu_writing_by_hand() -> None:
    # A step of 64 sequences on 4 GPUs: 35.277 GB of weights and 64 x 512 x 81,920 B = 2.684 GB of keys and values at
    # 1.2 TB/s take 31.63 ms, the arithmetic of 64 tokens 64 / 3,538 s = 18.09 ms.
    found = fill(written=1, tensor_parallel=4, max_sequences=64, max_model_len=1024)
    assert found.write_rate == pytest.approx(64 / (0.03163 + 0.01809), rel=1e-3)


def test_cpu_rates_scale_with_cores_and_parameters() -> None:
    small = ModelShape(layers=30, hidden=576, heads=9, kv_heads=3, mlp=1536, vocab=49152, tied_embeddings=True)
    measured = fill(small, accelerator="cpu", read=5500, written=2300, cpus=2)
    assert (measured.read_rate, measured.write_rate) == (550.0, 230.0)
    assert measured.seconds == pytest.approx(60 + 10 + 10)
    assert measured.gpus == 0
    assert fill(small, accelerator="cpu", cpus=8).write_rate == pytest.approx(4 * 230)
    assert fill(small, accelerator="cpu", cpus=2, count=3).write_rate == pytest.approx(3 * 230)
    assert fill(LLAMA_70B, accelerator="cpu", cpus=2).write_rate == pytest.approx(230 * 134_515_008 / 70_553_706_496)


def test_a_toy_is_not_promised_absurd_speed() -> None:
    assert fill(SHAPE, accelerator="cpu", cpus=2).write_rate == 2300.0


def test_the_report_shows_places_arithmetic_and_what_is_assumed() -> None:
    config = experiment(teacher_engine={"count": 2, "tensor_parallel": 2})
    teacher, student = planned(assumed=True), planned(assumed=False)
    placement = plan_placement(config, teacher=teacher, students={"kd": student}, hardware=NODE)
    time = expected_seconds(
        teacher,
        work=TeacherWork(10**6, 10**6),
        settings=config.runtime.teacher_engine,
        accelerator="gpu",
        dtype="bfloat16",
    )
    lines = render_placement(placement, fill=time)
    assert "  teacher engines: node 0: 0 on GPU 0-1, 1 on GPU 2-3" in lines
    assert "  training workers: node 0: 0 on GPU 0, 1 on GPU 1" in lines
    (engine,) = [line for line in lines if line.startswith("  teacher engine:")]
    (worker,) = [line for line in lines if line.startswith("  training worker, kd:")]
    assert engine.endswith("of 76.0 usable a GPU (assumed)")
    assert worker.endswith("of 76.0 usable a GPU")
    assert any("267.8k x 2 B / tensor_parallel 2" in line for line in lines)
    assert any(line.startswith("  fill: about") and line.endswith("(assumed)") for line in lines)


def test_students_of_one_shape_share_a_line() -> None:
    config = experiment()
    twins = {"a": config.students["kd"], "b": config.students["kd"]}
    config = config.model_copy(update={"students": twins})
    placement = plan_placement(config, teacher=planned(), students={"a": planned(), "b": planned()}, hardware=NODE)
    lines = render_placement(placement)
    assert sum("training worker, a; training worker, b" in line for line in lines) == 1
