"""Over which interface an engine takes weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from pool_builders import QuietLife

from configs.interfaces import interface_of
from orchestration.cluster import engines


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
    actor.__ray_metadata__.modified_class(spec, index=0, life=(life := QuietLife()))
    assert life.beats == 1
    expected = "as it was" if purpose == "fill" else f"={interface_of('127.0.0.1')}"
    assert os.environ["NCCL_SOCKET_IFNAME"] == expected
