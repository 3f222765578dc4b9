"""Memory of machines without GPUs, and of what is offloaded, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from plan_builders import PARAMETERS, place

from configs import ConfigError
from configs.schema import ModelShape
from orchestration.plan.hardware import Hardware, HostMemory
from orchestration.plan.host_memory import check_host
from orchestration.plan.memory import GIB
from orchestration.plan.placement import Placement

HALF_B = ModelShape(
    layers=24, hidden=896, heads=14, kv_heads=2, mlp=4864, vocab=151936, tied_embeddings=True, max_positions=32768
)
"""Qwen2.5-0.5B."""

ROOMY = HostMemory(64.0, 64.0)


def parts(placement: Placement, label: str) -> dict[str, float]:
    (phase,) = [phase for phase in placement.phases if phase.label == label]
    return {part.name: part.size_bytes for part in phase.parts}


def test_a_cpu_engine_by_hand() -> None:
    placement = place(Hardware("cpu", cpus=8), teacher_engine={"count": 3, "kv_cache_gib": 0.5})
    # Weights, logits and activations of 1,024 tokens, and 1 GiB of a process that has imported vLLM.
    held = PARAMETERS * 2 + 0.5 * GIB + 1024 * 1000 * 4 + 1024 * (4 * 64 + 3 * 128) * 2 + 1.0 * GIB
    assert parts(placement, "fill") == {"teacher engine": pytest.approx(3 * held), "driver": 2.5 * GIB}


def test_a_cpu_group_by_hand() -> None:
    placement = place(Hardware("cpu", cpus=8), training={"workers": 4, "zero_stage": 2, "micro_batch_tokens": 100})
    worker = PARAMETERS * (2 + 4 / 4 + 12 / 4) + 2 * PARAMETERS * 4
    worker += 100 * 4 * 2_944 + 3 * 256 * 2**20 + 1000 * 64 * 4 + 0.7 * GIB
    assert parts(placement, "training of kd")["training worker, kd"] == pytest.approx(4 * worker)


def test_what_is_offloaded_on_a_cpu_lies_in_the_same_memory() -> None:
    plain = parts(place(Hardware("cpu", cpus=8), training={"zero_stage": 3}), "training of kd")
    for offload in ("optimizer", "all"):
        training = {"zero_stage": 3, "offload": offload}
        assert parts(place(Hardware("cpu", cpus=8), training=training), "training of kd") == pytest.approx(plain)


def test_all_that_an_on_policy_stage_has_at_work_counts_together() -> None:
    rollout = {"objective": "minillm", "rollout": {"count": 2}}
    found = parts(place(Hardware("cpu", cpus=8), stages=[rollout]), "training of kd")
    assert list(found) == ["training worker, kd", "driver", "teacher engine", "student engine, kd"]
    replayed = {"objective": "kd", "rollout": {"count": 2, "replay_from": "x"}}
    assert len(parts(place(Hardware("cpu", cpus=8), stages=[replayed]), "training of kd")) == 2


def test_on_gpus_only_what_is_offloaded_counts() -> None:
    gpus = Hardware("gpu", nodes=2, gpus_per_node=8, memory=ROOMY)
    assert place(gpus, training={"workers": 16, "zero_stage": 3}).phases == ()
    training = {"workers": 16, "zero_stage": 3, "offload": "all"}
    found = parts(place(gpus, training=training), "training of kd, offloaded")
    # Half the workers on each machine, each with its sixteenth.
    assert found == {"weights": pytest.approx(PARAMETERS * 2 / 2), "optimiser": pytest.approx(PARAMETERS * 12 / 2)}


def test_a_half_b_student_on_two_workers_is_planned_as_it_was_seen() -> None:
    """Two workers of 9.5 GB (8.8 GiB) each were killed on a machine with 16 GB."""
    training = {"workers": 2, "micro_batch_tokens": 1024}
    placement = place(Hardware("cpu", cpus=2, memory=HostMemory(15.6, 14.0)), HALF_B, student=HALF_B, training=training)
    worker = parts(placement, "training of kd")["training worker, kd"] / 2 / GIB
    assert 0.85 * 8.8 < worker < 1.15 * 8.8
    with pytest.raises(ConfigError) as caught:
        check_host(placement.phases, memory=HostMemory(15.6, 14.0), asks_teacher=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "training of kd needs" in message and "14.8 of its 15.6 GiB are usable" in message
    assert "in runtime.training set gradient_checkpointing: true, lower workers=2 or micro_batch_tokens=1024" in message


def test_what_is_there_but_not_free_is_a_warning() -> None:
    placement = place(Hardware("cpu", cpus=2))
    assert check_host(placement.phases, memory=ROOMY, asks_teacher=True) == []
    warnings = check_host(placement.phases, memory=HostMemory(64.0, 3.0), asks_teacher=True)
    assert [warning.split(" needs")[0] for warning in warnings] == ["fill", "training of kd", "answers of kd"]
    assert all("3.0 GiB are free now" in warning and "end other programs, or" in warning for warning in warnings)


def test_a_teacher_that_is_not_asked_needs_no_room() -> None:
    placement = place(Hardware("cpu", cpus=2), teacher_engine={"kv_cache_gib": 100.0})
    with pytest.raises(
        ConfigError, match=r"fill needs 1\d\d\.\d GiB .*lower runtime\.teacher_engine\.kv_cache_gib=100"
    ):
        check_host(placement.phases, memory=ROOMY, asks_teacher=True)
    assert check_host(placement.phases, memory=ROOMY, asks_teacher=False) == []


def test_a_machine_that_does_not_tell_is_not_judged() -> None:
    placement = place(Hardware("cpu", cpus=2), teacher_engine={"kv_cache_gib": 100.0})
    assert check_host(placement.phases, memory=None, asks_teacher=True) == []
