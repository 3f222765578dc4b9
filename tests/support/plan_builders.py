"""Shapes and experiments to plan with."""

from __future__ import annotations

from typing import Any

from configs.schema import DistillConfig, ModelShape
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.hardware import Hardware
from orchestration.plan.memory import MemoryFit
from orchestration.plan.placement import Placement, plan_placement

SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
"""64 x 8 x (2 x 8 + 2 x 2) = 10,240 attention, 24,576 MLP, 128 norms: 34,944 a layer; 2 x 64,000 + 64 beside them."""

PARAMETERS = 4 * 34_944 + 128_000 + 64
LLAMA_70B = ModelShape(layers=80, hidden=8192, heads=64, kv_heads=8, mlp=28672, vocab=128256, max_positions=131072)
NODE = Hardware("gpu", nodes=1, gpus_per_node=8, gpu_memory_gib=80.0)


def planned(shape: ModelShape = SHAPE, *, assumed: bool = False) -> PlannedShape:
    """A shape to plan with."""
    return PlannedShape("model", shape, assumed=assumed)


def experiment(*, stages: list[dict[str, Any]] | None = None, plain: bool = False, **runtime: Any) -> DistillConfig:
    """An experiment with one student, `kd`, and perhaps with plain text."""
    student = {"init": {"keep_layers": 2}, "stages": stages or [{"objective": "kd", "steps": 10}]}
    data: dict[str, Any] = {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")}
    if plain:
        data["plain"] = {split: {"path": f"plain-{split}.jsonl"} for split in ("train", "dev")}
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": data,
            "students": {"kd": student},
            "runtime": runtime,
        }
    )


def place(
    hardware: Hardware,
    shape: ModelShape = SHAPE,
    *,
    student: ModelShape | None = SHAPE,
    stages: list[dict[str, Any]] | None = None,
    **runtime: Any,
) -> Placement:
    """Such an experiment on this hardware, with a teacher of this shape."""
    students = {"kd": planned(student) if student else None}
    config = experiment(stages=stages, **runtime)
    return plan_placement(config, teacher=planned(shape), students=students, hardware=hardware)


def sizes(fit: MemoryFit) -> dict[str, float]:
    """The terms by name."""
    return {item.name: item.size_bytes for item in fit.items}
