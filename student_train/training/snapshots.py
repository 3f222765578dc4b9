"""What a checkpoint is written from while training goes on: copies in host memory, as far as there is room for them.

A copy costs a fraction of the time that writing takes, but as much memory as what is written: 12 to 16 bytes a weight,
divided among the processes. So there is one rule: a file is copied if that takes at most half of the memory that is
free for this process just then, and otherwise written at once, from the tensors themselves. Training then waits for
the writing, but still for no disk, no digest and no other process.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPARED = 2
"""A copy leaves as much again of the free memory: the next step's activations want some of it."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def copied(state: Any) -> Any:
    """Nested dicts, lists and tuples with every tensor copied to the CPU; tensors that share memory share their copy's.

    What else there is in it is copied too.
    """
    return _copied(state, {})


def size_of(state: Any) -> int:
    """How many bytes `copied` takes for the tensors of a state."""
    return sum({storage.data_ptr(): storage.nbytes() for storage in _storages(state)}.values())


def has_room(size: int, *, free: int | None) -> bool:
    """Whether a copy of so many bytes may be made, where so many are `free` to this process; None is unknown."""
    return free is not None and SPARED * size <= free


def free_to_each(*, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Bytes of host memory that are free to each of the group's processes on this machine; None if nobody says so."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    within = _free_within(cgroup)
    return min(free, free if within is None else within) // int(os.environ.get("LOCAL_SIZE", "1"))


def _free_within(cgroup: Path) -> int | None:
    """What a control group still allows (version 2), its unused cached files counted as free; None without a limit."""
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _copied(value: Any, storages: dict[int, torch.UntypedStorage]) -> Any:
    if isinstance(value, Tensor):
        return _copied_tensor(value, storages)
    if isinstance(value, dict):
        # A copy first: its class may be another one, and what `state_dict` returns has attributes.
        made = copy.copy(value)
        for key, each in value.items():
            made[key] = _copied(each, storages)
        return made
    if type(value) in (list, tuple):
        return type(value)(_copied(each, storages) for each in value)
    return copy.deepcopy(value)


def _copied_tensor(tensor: Tensor, storages: dict[int, torch.UntypedStorage]) -> Tensor:
    of = tensor.untyped_storage()
    if of.data_ptr() not in storages:
        whole = torch.empty(0, dtype=torch.uint8, device=of.device).set_(of)
        storages[of.data_ptr()] = whole.to("cpu", copy=True).untyped_storage()
    made = torch.empty(0, dtype=tensor.dtype)
    made.set_(storages[of.data_ptr()], tensor.storage_offset(), tensor.shape, tensor.stride())
    return made.requires_grad_(tensor.requires_grad)


def _storages(value: Any) -> list[torch.UntypedStorage]:
    if isinstance(value, Tensor):
        return [value.untyped_storage()]
    if isinstance(value, Mapping):
        return [found for each in value.values() for found in _storages(each)]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [found for each in value for found in _storages(each)]
    return []
