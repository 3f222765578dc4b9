"""Shared memory that an engine's workers would leave behind.

A worker that does not end within vLLM's grace period of 4 s (a busy machine is enough) is terminated before it has
removed its segments. Which files are theirs is read from the workers' memory maps while they live, so nothing of
another engine is ever touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

_ROOT = "/dev/shm/"
_PREFIXES = ("vllm_dist_", "psm_")
"""Names of vLLM's communicators on a CPU, and of Python's shared memory, which carries its messages."""


def shared_by_children() -> frozenset[Path]:
    """Files of shared memory that the living child processes of this process have mapped."""
    found: set[Path] = set()
    for child in psutil.Process().children(recursive=True):
        try:
            maps = Path(f"/proc/{child.pid}/maps").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # It ended meanwhile, or this is not Linux, and there is nothing to be found here.
        names = (line.partition(_ROOT)[2] for line in maps.splitlines())
        found |= {Path(_ROOT + name) for name in names if name.startswith(_PREFIXES) and " " not in name}
    return frozenset(found)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove what is left of `paths` after their processes ended, and the rendezvous files they are named after."""
    for path in paths:
        path.unlink(missing_ok=True)
        if path.name.startswith("vllm_dist_"):
            Path(tempfile.gettempdir(), path.name.partition("-")[0]).unlink(missing_ok=True)
