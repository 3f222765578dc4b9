"""Whether the raylet of this process is there, by its socket alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestration.cluster import daemons
from orchestration.cluster.daemons import forget_raylet, raylet_is_gone, remember_raylet


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of the raylet that this process is connected to; another node has one that never was."""
    path = tmp_path / "raylet"
    nodes = [
        {"NodeID": "other", "RayletSocketName": str(tmp_path / "nowhere")},
        {"NodeID": "here", "RayletSocketName": str(path)},
    ]
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(daemons, "ray", SimpleNamespace(get_runtime_context=lambda: context, nodes=lambda: nodes))
    yield path
    forget_raylet()


def test_a_raylet_is_gone_when_nobody_listens_at_its_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(path))
        raylet.listen()
        remember_raylet()
        assert not raylet_is_gone()
    assert raylet_is_gone()
    path.unlink()
    assert raylet_is_gone()


def test_a_raylet_that_may_go_is_not_missed(path: Path) -> None:
    assert not raylet_is_gone()
    remember_raylet()
    assert raylet_is_gone()
    forget_raylet()
    assert not raylet_is_gone()


def test_a_raylet_too_busy_to_answer_is_not_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "CONNECT_S", 0.01)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(path))
        raylet.listen(0)
        remember_raylet()
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(str(path))
            assert not raylet_is_gone()
