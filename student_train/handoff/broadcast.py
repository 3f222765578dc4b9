"""Weights from the memory of a worker group's leader to that of engines, all of them at once.

It goes over NCCL between GPUs, and over Gloo on the loopback interface between processes of one machine. They meet in a
directory: through a file in it each learns where the others listen. Only names, shapes and a digest of the weights are
written to disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cache.fingerprint import tensor_sha256, weights_sha256
from configs.regular_files import UnreadableFileError, read_json

OFFER = "offer.json"

MEETING_TIMEOUT = timedelta(minutes=2)
"""How long either side waits for the other before it gives up."""

_STORED_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What safetensors calls the dtypes that students are trained in."""


@dataclass(frozen=True, slots=True)
class OfferedTensor:
    """A tensor that will be sent: its name in a checkpoint, its dtype as torch calls it, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """The weights that a leader will send, in that order; the digest is that of `cache.fingerprint`."""

    weights_sha256: str
    tensors: tuple[OfferedTensor, ...]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Offer:
        """The offer of these weights."""
        tensors = (
            OfferedTensor(name, str(value.dtype).removeprefix("torch."), tuple(value.shape))
            for name, value in weights.items()
        )
        # hashlib releases the interpreter lock, so threads hash on all cores.
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            digests = dict(zip(weights, pool.map(_digest, weights.values()), strict=True))
        return cls(weights_sha256(digests), tuple(tensors))

    @classmethod
    def read(cls, policy_dir: Path) -> Offer | None:
        """The offer in the directory of a policy; None where the weights themselves are there.

        Raises:
            UnreadableFileError: its file holds something else.
        """
        path = policy_dir / OFFER
        try:
            stored: Any = read_json(path)
        except FileNotFoundError:
            return None
        try:
            tensors = [OfferedTensor(each["name"], each["dtype"], tuple(each["shape"])) for each in stored["tensors"]]
            return cls(stored["weights_sha256"], tuple(tensors))
        except (KeyError, TypeError) as error:
            raise UnreadableFileError(f"{path}: is not an offer of weights ({error!r})") from None

    def write(self, policy_dir: Path) -> None:
        """Write it into the directory of a policy."""
        (policy_dir / OFFER).write_text(json.dumps(asdict(self)))


def send(weights: Mapping[str, Tensor], *, meeting: Path, size: int, device: torch.device) -> None:
    """Send tensors to the `size` - 1 other processes at `meeting`; returns when each of them has them all.

    Raises:
        RuntimeError: a process did not come in time, or left.
    """
    group = _join(meeting, rank=0, size=size, device=device)
    for tensor in weights.values():
        group.broadcast(tensor.to(device).contiguous(), 0).wait()
    _wait_for_all(group, device=device)


@dataclass(frozen=True, slots=True)
class Receiver:
    """What the processes of one engine need to receive weights from a broadcast; it can be pickled.

    `first` is the rank of the engine's first process among `size` participants; the worker group's leader is rank 0.
    """

    meeting: Path
    first: int
    size: int
    tensors: tuple[OfferedTensor, ...]

    def __call__(self, process: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """The tensors for one process of the engine, as they arrive.

        Raises:
            RuntimeError: the sender or another receiver is gone.
        """
        group = _join(self.meeting, rank=self.first + process, size=self.size, device=device)
        for offered in self.tensors:
            tensor = torch.empty(offered.shape, dtype=getattr(torch, offered.dtype), device=device)
            group.broadcast(tensor, 0).wait()
            yield offered.name, tensor
        # No process may leave before all have everything: the sender has to know that the weights arrived.
        _wait_for_all(group, device=device)


def _join(meeting: Path, *, rank: int, size: int, device: torch.device) -> Any:
    """A process group of those at `meeting`, apart from any other that this process belongs to.

    Raises:
        RuntimeError: a process did not come in time.
    """
    store = dist.FileStore(str(meeting / "store"), size)  # type: ignore[attr-defined]
    store.set_timeout(MEETING_TIMEOUT)
    if device.type == "cuda":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = MEETING_TIMEOUT
        return dist.ProcessGroupNCCL(store, rank, size, options)
    gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    gloo._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    gloo._timeout = MEETING_TIMEOUT
    return dist.ProcessGroupGloo(store, rank, size, gloo)


def _wait_for_all(group: Any, *, device: torch.device) -> None:
    # Reading the value waits for the work: NCCL's calls return before it is done, and its own barrier guesses a device.
    total = torch.zeros(1, device=device)
    group.allreduce([total]).wait()
    float(total)


def _digest(tensor: Tensor) -> str:
    content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return tensor_sha256(_STORED_NAMES[tensor.dtype], tensor.shape, hashlib.sha256(content.data).digest())
