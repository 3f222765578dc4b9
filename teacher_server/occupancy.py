"""Memory that an engine takes while it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
import torch


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Resident bytes of an engine's process and all that it started, and bytes that they took of GPUs (0: none)."""

    host_bytes: int
    gpu_bytes: int


def resident_bytes() -> int:
    """Resident bytes of this process and of its descendants; one that ends meanwhile has none."""
    total = 0
    process = psutil.Process()
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def most_reserved_bytes(worker: Any) -> int:
    """The most that one process of an engine has taken of its GPU: weights, KV blocks, and what a step needs."""
    return int(torch.cuda.max_memory_reserved(worker.device)) if worker.device.type == "cuda" else 0
