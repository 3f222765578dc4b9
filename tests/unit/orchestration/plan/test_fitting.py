"""What does not fit is refused, with the keys, their values and the cure."""

from __future__ import annotations

from typing import Any

import pytest
from plan_builders import LLAMA_70B, NODE, SHAPE, place

from configs import ConfigError
from configs.schema import ModelShape
from orchestration.plan.hardware import Hardware


def refusal(hardware: Hardware, shape: ModelShape = SHAPE, **runtime: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        place(hardware, shape, **runtime)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("nodes", "gpus", "width"), [(1, 8, 1), (1, 8, 2), (2, 8, 8), (3, 4, 2), (2, 5, 2)])
def test_as_many_whole_groups_fit_as_the_nodes_hold(nodes: int, gpus: int, width: int) -> None:
    room, hardware = nodes * (gpus // width), Hardware("gpu", nodes, gpus)
    place(hardware, teacher_engine={"count": room, "tensor_parallel": width})
    message = refusal(hardware, teacher_engine={"count": room + 1, "tensor_parallel": width})
    assert f"set count to {room} or less" in message


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
            {"teacher_engine": {"pipeline_parallel": 2}},
            ["runtime.teacher_engine.pipeline_parallel=2", "needs GPUs", "set it to 1"],
        ),
        (
            NODE,
            {"teacher_engine": {"tensor_parallel": 4, "pipeline_parallel": 3}},
            ["runtime.teacher_engine.tensor_parallel=4 x pipeline_parallel=3", "8 GPUs of a node", "lower it"],
        ),
        (
            NODE,
            {"teacher_engine": {"count": 3, "tensor_parallel": 2, "pipeline_parallel": 2}},
            ["count=3 x tensor_parallel=2 x pipeline_parallel=2", "hold 2 whole engines", "set count to 2 or less"],
        ),
        (
            NODE,
            {"teacher_engine": {"pipeline_parallel": 5}},
            ["runtime.teacher_engine.pipeline_parallel=5", "4 layers of the teacher", "lower it to 4 or less"],
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
