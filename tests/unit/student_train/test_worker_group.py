"""The processes of a worker group find each other, and nobody else finds them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import meeting_worker
import pytest

pytestmark = pytest.mark.group

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME")


def _group(how: str, *places: dict[str, str]) -> list[dict[str, Any]]:
    """What each process says of a worker group that has these variables in its environments."""
    plain = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    root = str(Path(__file__).parents[3])
    workers = [
        subprocess.Popen(
            [sys.executable, meeting_worker.__file__, how],
            env=plain | {"PYTHONPATH": root} | place,
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    try:
        said = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return [json.loads(each) for each in said]


@pytest.mark.parametrize("launcher", [True, False])
def test_two_processes_meet_on_loopback(tmp_path: Path, launcher: bool) -> None:
    """With torch's own rendezvous the first of them would listen on every interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2"} | ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if launcher else {})
    how = "launcher" if launcher else str(tmp_path / "meeting")
    for each in _group(how, *(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))):
        assert each["size"] == 2
        assert set(each["listening"]) == {"127.0.0.1"}


def test_a_process_alone_is_a_group_of_one() -> None:
    (alone,) = _group("launcher", {})
    assert alone["size"] == 1
    assert set(alone["listening"]) <= {"127.0.0.1"}
