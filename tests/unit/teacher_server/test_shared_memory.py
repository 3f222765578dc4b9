"""Shared memory of an engine's own workers is found while they live and removed afterwards; nobody else's is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from teacher_server.shared_memory import remove_files, shared_by_children

_HOLD = """
import mmap, sys
files = [open(name, "r+b") for name in sys.argv[1:]]
maps = [mmap.mmap(file.fileno(), 0) for file in files]
print("mapped", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_child_had_mapped_is_removed() -> None:
    name = f"vllm_dist_{uuid.uuid4().hex}"
    mine, foreign = Path("/dev/shm") / f"{name}-tp:0-[0-1]-cpushm_0", Path("/dev/shm") / f"{name}-of-another"
    rendezvous = Path(tempfile.gettempdir()) / name
    unrelated = Path("/dev/shm") / f"other_{name}"
    for path in (mine, foreign, rendezvous, unrelated):
        path.write_bytes(bytes(4096))
    try:
        with subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(mine), str(unrelated)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None and child.stdout.readline() == "mapped\n"
            found = shared_by_children()
            child.kill()
        assert found == {mine}
        remove_files(found)
        assert not mine.exists() and not rendezvous.exists()
        assert foreign.exists() and unrelated.exists()
        remove_files(found)
    finally:
        for path in (mine, foreign, rendezvous, unrelated):
            path.unlink(missing_ok=True)


def test_no_children_share_nothing() -> None:
    assert not any("vllm_dist_" in path.name for path in shared_by_children())
