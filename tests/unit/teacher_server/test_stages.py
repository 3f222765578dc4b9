"""The buffer between the stages of an engine. With two stages: tests/end_to_end/test_tensor_parallel.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from teacher_server.stages import make_room_between_stages


def test_a_stage_gets_room_for_a_batch_once() -> None:
    model = SimpleNamespace(make_empty_intermediate_tensors=lambda **sizes: sizes)
    runner: Any = SimpleNamespace(
        get_model=lambda: model, intermediate_tensors=None, max_num_tokens=128, device="cpu",
        model_config=SimpleNamespace(dtype="float32"),
    )  # fmt: skip
    worker = SimpleNamespace(model_runner=runner)
    make_room_between_stages(worker)
    made = runner.intermediate_tensors
    assert made == {"batch_size": 128, "dtype": "float32", "device": "cpu"}
    make_room_between_stages(worker)
    assert runner.intermediate_tensors is made


def test_a_model_that_is_one_stage_is_left_alone() -> None:
    runner: Any = SimpleNamespace(get_model=object)
    make_room_between_stages(SimpleNamespace(model_runner=runner))
    assert not hasattr(runner, "intermediate_tensors")
