"""The processes that train one student together.

A launcher starts them. The workers of a run meet in a directory (`meet`) before they get here; others have the usual
variables in their environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. A process without them is a
worker group of one.

No other process can join. Torch's own rendezvous (`env://`, `tcp://`) listens on every interface of the machine and
authenticates nobody; here it is a file, memory, or a socket that is bound to MASTER_ADDR alone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import ConfigError
from configs.interfaces import LOOPBACK, collective_environment
from configs.models import Device

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""A worker group that lost a member fails after this long instead of hanging for ever."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """This process's place among its peers."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The elementwise sum over all processes, the same on each."""
        summed = values.detach().clone().to(self.device)
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - one flag in, the same one out everywhere
        """Whether the flag is set on any process, the same answer on each."""
        return bool(self.total(torch.tensor([float(flag)])) > 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        # A sum and not `dist.barrier`, which guesses a device under NCCL.
        self.total(torch.zeros(1))

    def release_kept_memory(self) -> None:
        """Give GPU memory back that torch keeps for later, for other processes on the same GPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def from_leader(self, text: str | None) -> str | None:
        """The leader's text, on every process."""
        box = [text]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def from_all(self, text: str | None) -> list[str | None]:
        """The texts of all processes, in their order, on every process."""
        texts: list[str | None] = [None] * self.world_size
        dist.all_gather_object(texts, text)
        return texts


def meet(meeting: Path, *, rank: int, size: int, backend: str, timeout: timedelta) -> None:
    """Make the process group of `size` processes that meet at `meeting`, a file that does not exist yet.

    All of them have to see its directory, and locks on its files have to work.

    Raises:
        RuntimeError: a process did not come in time.
    """
    store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def join_group(accelerator: Device | None) -> WorkerGroup:
    """Join the process group, making it if there is none, and pick this process's device.

    Without `accelerator` that is a GPU where there is one. Sets the environment that DeepSpeed reads while it is
    imported, so it has to be called before that.

    Raises:
        ConfigError: accelerator=gpu without a GPU.
    """
    device = _device(accelerator)
    single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": LOOPBACK, "MASTER_PORT": "0"}
    if "RANK" not in os.environ and not dist.is_initialized():
        # Port 0 is never listened at. DeepSpeed looks for an MPI launcher if one of these variables is missing.
        os.environ.update(single)
    # The CPU accelerator counts its devices by this name, which launchers other than MPI do not set.
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if device.type == "cpu" else "cuda")
    if device.type == "cpu":
        keep_freed_memory()
    if not dist.is_initialized():
        backend = "gloo" if device.type == "cpu" else "nccl"
        if os.environ["MASTER_ADDR"] == LOOPBACK:
            os.environ.update(collective_environment(LOOPBACK))
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(
            backend, store=_store(rank=rank, size=size), rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT
        )
    return WorkerGroup(dist.get_rank(), dist.get_world_size(), device)


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, where the C library can; whether it could.

    Torch on a CPU asks for gradients and activations of many megabytes and frees them, every step. By default glibc
    requests each of them from the system again, and clearing the fresh pages cost a fifth of a step: with a student of
    99 M weights 1.61 s of CPU time against 1.27 s, at the price of 2.6 GB at the peak instead of 2.2 GB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def give_freed_memory_back() -> None:
    """Return to the system what `keep_freed_memory` has kept so far, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def forget_peak_memory() -> None:
    """Let `peak_memory_gib` begin again from what this process holds now, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        # proc(5): writing 5 resets the peak resident set size, which `getrusage` reads too.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_gib(device: torch.device) -> float:
    """The most memory that this process has held: on its GPU, or in total where it has none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _device(accelerator: Device | None) -> torch.device:
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise ConfigError("accelerator=gpu but this machine has no GPU that torch can use: set accelerator: cpu")
    if accelerator == "cpu" or not available:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _store(*, rank: int, size: int) -> Any:
    """Where the processes of a launcher find each other: in memory if there is one, else at MASTER_ADDR alone."""
    if size == 1:
        return dist.HashStore()  # type: ignore[attr-defined]
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torchrun holds the store itself.
    if rank > 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return dist.TCPStore(  # type: ignore[attr-defined]
            host, port, size, is_master=False, timeout=COLLECTIVE_TIMEOUT
        )
    family = socket.getaddrinfo(host, port)[0][0]
    with socket.create_server((host, port), family=family) as listener:
        # The store takes the socket over, and closes it. Left to itself it listens on every interface.
        return dist.TCPStore(  # type: ignore[attr-defined]
            host, port, size, is_master=True, timeout=COLLECTIVE_TIMEOUT, master_listen_fd=listener.detach()
        )
