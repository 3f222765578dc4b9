"""A worker group and engines on the same GPUs: room for one of each, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from configs import ConfigError
from configs.doors import DoorConfig
from configs.schema import DistillConfig, ModelShape
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.colocation import GPU_SHARES
from orchestration.plan.hardware import Hardware
from orchestration.plan.memory import GIB, MemoryFit
from orchestration.plan.placement import plan_placement

SHAPE = PlannedShape("model", ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000), assumed=False)
LARGE = ModelShape(layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=32000)
"""7.24 G parameters: 13.5 GiB in bfloat16, and 125 GiB of state to train them on one GPU."""


def experiment(*, ahead: bool = False, **runtime: Any) -> DistillConfig:
    stage = {"objective": "minillm", "rollout": {"count": 2, "ahead": ahead}}
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"small": {"init": {"keep_layers": 2}, "stages": [stage]}},
            "runtime": {"colocate": True} | runtime,
        }
    )


def plan(config: DistillConfig, *, gpus: int, nodes: int = 1, student: PlannedShape = SHAPE) -> dict[str, MemoryFit]:
    hardware = Hardware("gpu", nodes, gpus, config.runtime.gpu_memory_gib)
    placement = plan_placement(config, teacher=SHAPE, students={"small": student}, hardware=hardware)
    return {fit.label: fit for fit in placement.fits}


def test_a_gpu_has_room_for_one_of_each_kind() -> None:
    """Every content of a GPU with a worker on it that Ray's books allow, in hundredths."""
    shares = {role: round(100 * share) for role, share in GPU_SHARES.items()}
    worker, teacher, student = (shares[role] for role in ("training worker", "teacher engine", "student engine"))
    assert worker + teacher + student == 100 < 2 * worker
    held = {(t, s) for t, s in product(range(5), range(7)) if worker + t * teacher + s * student <= 100}
    # Two student's engines only where there is none of the teacher's: memory is planned for that.
    assert held == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


def test_engines_and_workers_share_gpus() -> None:
    three: dict[str, Any] = {"training": {"workers": 3}, "teacher_engine": {"count": 2}, "student_engine": {"count": 3}}
    assert "shared GPU, small" in plan(experiment(**three), gpus=3)
    assert plan(experiment(training={"workers": 1}), gpus=1)
    assert plan(experiment(training={"workers": 4}), gpus=2, nodes=2)
    with pytest.raises(ConfigError, match=r"on 8 GPUs at once.* there are 3: .* set runtime\.colocate: true"):
        plan(experiment(colocate=False, **three), gpus=3)


def test_on_cpus_there_is_nothing_to_share() -> None:
    config = experiment(ahead=True, student_engine={"count": 3}, training={"workers": 1})
    placement = plan_placement(config, teacher=SHAPE, students={"small": SHAPE}, hardware=Hardware("cpu"))
    assert not any(fit.label.startswith("shared") for fit in placement.fits)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ahead": True}, ["students.small.stages.0.rollout.ahead=true", "runtime.colocate=true", "remove one"]),
        ({"teacher_engine": {"tensor_parallel": 2}}, ["runtime.teacher_engine.tensor_parallel=2", "set it to 1"]),
        ({"teacher_engine": {"pipeline_parallel": 2}}, ["runtime.teacher_engine.pipeline_parallel=2", "set it to 1"]),
        ({"student_engine": {"tensor_parallel": 2}}, ["runtime.student_engine.tensor_parallel=2", "colocate: false"]),
        ({"student_engine": {"count": 3}}, ["runtime.student_engine.count=3", "workers=2", "lower the first"]),
        ({"training": {"weight_sync": "broadcast"}}, ["weight_sync=broadcast", "NCCL", "set weight_sync: files"]),
        ({"nodes": 2}, ["runtime.training.workers=2", "runtime.nodes=2", "set workers to 8, or lower nodes"]),
    ],
)
def test_what_cannot_be_shared_names_keys_values_and_cure(changed: dict[str, Any], words: list[str]) -> None:
    config = experiment(**changed)
    with pytest.raises(ConfigError) as caught:
        plan(config, gpus=4, nodes=config.runtime.nodes)
    for word in words:
        assert word in str(caught.value)


def test_the_worse_of_writing_and_training_has_to_fit() -> None:
    def needed(**runtime: Any) -> tuple[MemoryFit, dict[str, MemoryFit]]:
        fits = plan(experiment(training={"workers": 1}, **runtime), gpus=1)
        return fits["shared GPU, small"], fits

    writing, fits = needed(teacher_engine={"kv_cache_gib": 20}, student_engine={"kv_cache_gib": 10})
    engines = fits["teacher engine"].total_bytes + fits["student engine, small"].total_bytes
    kept = [item for item in fits["training worker, small"].items if item.name != "activations"]
    assert writing.total_bytes == engines + sum(item.size_bytes for item in kept)
    assert [item.name for item in writing.items] == [*(item.name for item in kept), "engines"]

    several: dict[str, Any] = {"training": {"workers": 2}, "student_engine": {"count": 2, "kv_cache_gib": 20}}
    fits = plan(experiment(**several), gpus=2)
    # One of two GPUs may hold both of the student's engines, which are larger here than the teacher's.
    assert fits["shared GPU, small"].items[-1].size_bytes == 2 * fits["student engine, small"].total_bytes

    training, fits = needed(teacher_engine={"kv_cache_gib": 0.01}, student_engine={"kv_cache_gib": 0.01})
    assert training.total_bytes == fits["training worker, small"].total_bytes + 2 * 3 * GIB
    assert "asleep" in training.items[-1].arithmetic


def test_what_does_not_fit_together_is_refused() -> None:
    """The state takes 125 GiB, the student's engine 18, the teacher's 4 or 30; 152 are usable."""
    large = PlannedShape("large", LARGE, assumed=False)
    runtime: dict[str, Any] = {"training": {"workers": 1, "micro_batch_tokens": 512}, "gpu_memory_gib": 160.0}
    engine = {"kv_cache_gib": 27.0}
    assert plan(experiment(**runtime), gpus=1, student=large)
    with pytest.raises(ConfigError, match=r"shared GPU, small needs 173\.7.*engine\.kv_cache_gib=27 .*colocate: false"):
        plan(experiment(**runtime, teacher_engine=engine), gpus=1, student=large)


def test_a_teacher_behind_a_door_shares_no_gpu() -> None:
    door = DoorConfig(url="https://teacher.example")

    def needed(**runtime: Any) -> dict[str, MemoryFit]:
        config = experiment(teacher_engine={"count": 5, "tensor_parallel": 8, "kv_cache_gib": 40}, **runtime)
        served = config.teacher.model_copy(update={"serve": door})
        return plan(config.model_copy(update={"teacher": served}), gpus=2)

    one = needed(training={"workers": 2}, student_engine={"kv_cache_gib": 20})
    own = one["student engine, small"].total_bytes
    assert one["shared GPU, small"].items[-1].size_bytes == own
    # Where there are two of the student's engines, Ray may put both beside one worker.
    two = needed(training={"workers": 2}, student_engine={"count": 2, "kv_cache_gib": 20})
    assert two["shared GPU, small"].items[-1].size_bytes == 2 * own
    assert "teacher_engine" not in two["shared GPU, small"].cure
