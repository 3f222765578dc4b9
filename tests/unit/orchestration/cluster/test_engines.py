"""The queue of a fill and the budget that it keeps, and over which interface an engine takes weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from local_engines import EOS, lease_queue

from cache import GenerateRequest
from cache.answers import Request
from configs.interfaces import interface_of
from orchestration.cluster import engines
from orchestration.cluster.engines import LEASE
from orchestration.fill.engine_loop import FillProgress


@pytest.mark.parametrize("purpose", ["fill", "rollout", "shared rollout"])
def test_engines_of_a_rollout_meet_the_group_on_the_clusters_interface(
    purpose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "redirect_output", lambda _: None)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    engine = SimpleNamespace(VllmEngine=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "teacher_server.vllm_engine", engine)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "as it was")
    settings: Any = None
    identity: Any = SimpleNamespace(dtype="float32", quantization=None)
    spec = engines.EngineSpec(
        tmp_path, identity, vocab=8, dtype="float32", quantization=None, settings=settings, max_logprobs=4,
        accelerator="cpu", log_dir=tmp_path, purpose=purpose,  # type: ignore[arg-type]
    )  # fmt: skip
    actor: Any = engines.EngineActor
    actor.__ray_metadata__.modified_class(spec, index=0)
    expected = "as it was" if purpose == "fill" else f"={interface_of('127.0.0.1')}"
    assert os.environ["NCCL_SOCKET_IFNAME"] == expected


def work(count: int, *, limit: int = 8) -> list[tuple[int, Request]]:
    """Requests of at most 10 tokens each."""
    request = GenerateRequest((3, 4), stop_ids=(EOS,), max_new_tokens=limit)
    return [(number, request) for number in range(count)]


def test_a_queue_hands_out_leases_in_order_until_it_is_empty_or_stopped() -> None:
    queue = lease_queue(work(LEASE + 3), token_budget=None)
    assert [number for number, _ in queue.lease()] == list(range(LEASE))
    assert [number for number, _ in queue.lease()] == [LEASE, LEASE + 1, LEASE + 2]
    assert queue.lease() == []
    stopped = lease_queue(work(3), token_budget=None)
    assert stopped.report(FillProgress(rows=1)) is False
    stopped.stop()
    assert stopped.lease() == [] and stopped.report(FillProgress(rows=2)) is True
    assert stopped.progress().rows == 3


def test_a_budget_keeps_room_for_the_longest_answers_of_what_is_under_way() -> None:
    queue = lease_queue(work(5), token_budget=25)
    assert [number for number, _ in queue.lease()] == [0, 1]
    assert queue.lease() == []
    # One answer took 4 of its 10 tokens: 4 + 10 under way + 10 fit 25, and another 10 would not.
    queue.report(FillProgress(forward_tokens=4, settled_tokens=10))
    assert [number for number, _ in queue.lease()] == [2]
    assert queue.lease() == []
