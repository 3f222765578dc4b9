"""Memory of a process and of what it started."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import torch

from teacher_server.occupancy import most_reserved_bytes, resident_bytes

MIB = 2**20


def test_what_a_process_started_counts_with_it() -> None:
    alone = resident_bytes()
    script = "data = bytearray(64 * 2**20); print('up', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        together = resident_bytes()
        child.stdin.write(b"\n")
    assert together - alone > 60 * MIB


def test_an_engine_on_cpus_takes_nothing_of_a_gpu() -> None:
    assert most_reserved_bytes(SimpleNamespace(device=torch.device("cpu"))) == 0
