"""Memory of machines without GPUs, and of what is offloaded, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError
from configs.schema import DistillConfig, ModelShape
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.bundles import Hardware, HostMemory
from orchestration.plan.host_memory import check_host, read_host_memory
from orchestration.plan.memory import GIB
from orchestration.plan.placement import Placement, plan_placement, render_placement

SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
PARAMETERS = SHAPE.parameters
HALF_B = ModelShape(
    layers=24, hidden=896, heads=14, kv_heads=2, mlp=4864, vocab=151936, tied_embeddings=True, max_positions=32768
)
"""Qwen2.5-0.5B."""

ROOMY = HostMemory(64.0, 64.0)


def placed(
    hardware: Hardware, shape: ModelShape = SHAPE, *, stages: list[dict[str, Any]] | None = None, **runtime: Any
) -> Placement:
    init = {"keep_layers": 2}
    config = DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"kd": {"init": init, "stages": stages or [{"objective": "kd", "steps": 10}]}},
            "runtime": runtime,
        }
    )
    planned = PlannedShape("model", shape, assumed=False)
    return plan_placement(config, teacher=planned, students={"kd": planned}, hardware=hardware)


def parts(placement: Placement, label: str) -> dict[str, float]:
    (phase,) = [phase for phase in placement.phases if phase.label == label]
    return {part.name: part.size_bytes for part in phase.parts}


def test_a_cpu_engine_by_hand() -> None:
    placement = placed(Hardware("cpu", cpus=8), teacher_engine={"count": 3, "kv_cache_gib": 0.5})
    # Weights, logits and activations of 1,024 tokens, and 1 GiB of a process that has imported vLLM.
    held = PARAMETERS * 2 + 0.5 * GIB + 1024 * 1000 * 4 + 1024 * (4 * 64 + 3 * 128) * 2 + 1.0 * GIB
    assert parts(placement, "fill") == {"teacher engine": pytest.approx(3 * held), "driver": 2.5 * GIB}


def test_a_cpu_group_by_hand() -> None:
    placement = placed(Hardware("cpu", cpus=8), training={"workers": 4, "zero_stage": 2, "micro_batch_tokens": 100})
    worker = PARAMETERS * (2 + 4 / 4 + 12 / 4) + 2 * PARAMETERS * 4
    worker += 100 * 4 * 2_944 + 3 * 256 * 2**20 + 1000 * 64 * 4 + 0.7 * GIB
    assert parts(placement, "training of kd")["training worker, kd"] == pytest.approx(4 * worker)


def test_what_is_offloaded_on_a_cpu_lies_in_the_same_memory() -> None:
    plain = parts(placed(Hardware("cpu", cpus=8), training={"zero_stage": 3}), "training of kd")
    for offload in ("optimizer", "all"):
        training = {"zero_stage": 3, "offload": offload}
        assert parts(placed(Hardware("cpu", cpus=8), training=training), "training of kd") == pytest.approx(plain)


def test_all_that_an_on_policy_stage_has_at_work_counts_together() -> None:
    rollout = {"objective": "minillm", "rollout": {"count": 2}}
    found = parts(placed(Hardware("cpu", cpus=8), stages=[rollout]), "training of kd")
    assert list(found) == ["training worker, kd", "driver", "teacher engine", "student engine, kd"]
    replayed = {"objective": "kd", "rollout": {"count": 2, "replay_from": "x"}}
    assert len(parts(placed(Hardware("cpu", cpus=8), stages=[replayed]), "training of kd")) == 2


def test_on_gpus_only_what_is_offloaded_counts() -> None:
    gpus = Hardware("gpu", nodes=2, gpus_per_node=8, memory=ROOMY)
    assert placed(gpus, training={"workers": 16, "zero_stage": 3}).phases == ()
    training = {"workers": 16, "zero_stage": 3, "offload": "all"}
    found = parts(placed(gpus, training=training), "training of kd, offloaded")
    # Half the workers on each machine, each with its sixteenth.
    assert found == {"weights": pytest.approx(PARAMETERS * 2 / 2), "optimiser": pytest.approx(PARAMETERS * 12 / 2)}


def test_a_half_b_student_on_two_workers_is_planned_as_it_was_seen() -> None:
    """Two workers of 9.5 GB (8.8 GiB) each were killed on a machine with 16 GB."""
    training = {"workers": 2, "micro_batch_tokens": 1024}
    placement = placed(Hardware("cpu", cpus=2, memory=HostMemory(15.6, 14.0)), HALF_B, training=training)
    worker = parts(placement, "training of kd")["training worker, kd"] / 2 / GIB
    assert 0.85 * 8.8 < worker < 1.15 * 8.8
    with pytest.raises(ConfigError) as caught:
        check_host(placement.phases, memory=HostMemory(15.6, 14.0), asks_teacher=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "training of kd needs" in message and "14.8 of its 15.6 GiB are usable" in message
    assert "in runtime.training set gradient_checkpointing: true, lower workers=2 or micro_batch_tokens=1024" in message


def test_what_is_there_but_not_free_is_a_warning() -> None:
    placement = placed(Hardware("cpu", cpus=2))
    assert check_host(placement.phases, memory=ROOMY, asks_teacher=True) == []
    warnings = check_host(placement.phases, memory=HostMemory(64.0, 3.0), asks_teacher=True)
    assert [warning.split(" needs")[0] for warning in warnings] == ["fill", "training of kd", "answers of kd"]
    assert all("3.0 GiB are free now" in warning and "end other programs, or" in warning for warning in warnings)


def test_a_teacher_that_is_not_asked_needs_no_room() -> None:
    placement = placed(Hardware("cpu", cpus=2), teacher_engine={"kv_cache_gib": 100.0})
    with pytest.raises(
        ConfigError, match=r"fill needs 1\d\d\.\d GiB .*lower runtime\.teacher_engine\.kv_cache_gib=100"
    ):
        check_host(placement.phases, memory=ROOMY, asks_teacher=True)
    assert check_host(placement.phases, memory=ROOMY, asks_teacher=False) == []


def test_a_machine_that_does_not_tell_is_not_judged() -> None:
    placement = placed(Hardware("cpu", cpus=2), teacher_engine={"kv_cache_gib": 100.0})
    assert check_host(placement.phases, memory=None, asks_teacher=True) == []


def test_the_plan_shows_every_phase() -> None:
    text = "\n".join(render_placement(placed(Hardware("cpu", cpus=2, memory=ROOMY))))
    assert "memory of a machine, fill: " in text and "GiB of 60.8 usable (teacher engine " in text
    assert "memory of a machine, training of kd: " in text and "memory of a machine, answers of kd: " in text
    assert "CUDA" not in text and "process" in text


def test_this_machine_and_the_limits_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal:       16777216 kB\nMemFree:         1 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n"
    )
    assert read_host_memory(tmp_path, ()) == HostMemory(16.0, 8.0)
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", (16.0, 8.0)), (f"{4 * GIB}\n", (4.0, 4.0)), (f"{2**63}\n", (16.0, 8.0))):
        limit.write_text(text)
        assert read_host_memory(tmp_path, (str(limit), "/nowhere")) == HostMemory(*expected)
    (tmp_path / "meminfo").write_text("nonsense")
    assert read_host_memory(tmp_path, ()) is None
    assert read_host_memory(tmp_path / "none", ()) is None
    here = read_host_memory()
    assert here is not None and 0 < here.free_gib <= here.total_gib
