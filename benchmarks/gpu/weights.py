"""Weights on their way from the leader of a worker group to other processes, as on-policy training sends them.

Over NCCL with one process a GPU where there are several; on a CPU over Gloo, two processes. With one GPU the group is
its leader alone: NCCL's calls are made and nothing leaves the device.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measure import ON_GPU, Floors
from benchmarks.gpu.steps import STUDENT, qwen2
from benchmarks.kd_step import wait
from benchmarks.measurement import Measurement, Row
from student_train.handoff.broadcast import Offer, OfferedTensor, Receiver, send

ROUNDS = 3
READY_S = 180.0
"""How long a process may take to be up."""


def bench_broadcast(floors: Floors) -> Iterator[Row]:
    """Seconds from the first tensor to the last, meeting included, and what the digest of the weights takes before."""
    size = torch.cuda.device_count() if ON_GPU else 2
    place = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
    weights = {name: value.detach() for name, value in qwen2(STUDENT).model.named_parameters()}
    on_host = {name: value.cpu() for name, value in weights.items()}
    started = time.perf_counter()
    offer = Offer.of(on_host)
    hashed = time.perf_counter() - started
    best = _best_seconds(weights, offer.tensors, size=size, place=place)
    count = sum(value.numel() * value.element_size() for value in weights.values())
    name = f"broadcast of {count / 2**20:,.1f} MiB in {len(weights)} tensors over {'NCCL' if ON_GPU else 'Gloo'}"
    note = (
        f"{count / best / 1e9:.2f} GB/s to each of {size - 1}" if size > 1 else "one GPU: a group of its leader alone"
    )
    yield Measurement(f"{name}, {size} process{'es' if size > 1 else ''}", best, "s", digits=3, note=note)
    yield Measurement("digest of the weights, before they are offered", hashed, "s", digits=3)


def _best_seconds(
    weights: dict[str, Tensor], tensors: tuple[OfferedTensor, ...], *, size: int, place: torch.device
) -> float:
    """The shortest of several broadcasts to processes that are up already; they meet anew for each, as engines do."""
    with tempfile.TemporaryDirectory() as folder:
        meetings = [Path(folder, str(number)) for number in range(ROUNDS)]
        for meeting in meetings:
            meeting.mkdir()
        context = get_context("spawn")
        ready = context.Barrier(size)
        others = []
        for rank in range(1, size):
            receivers = [Receiver(meeting, rank, size, tensors) for meeting in meetings]
            others.append(context.Process(target=_receive, args=(receivers, ready, rank)))
            others[-1].start()
        try:
            seconds = []
            for meeting in meetings:
                ready.wait(READY_S)
                wait()
                started = time.perf_counter()
                send(weights, meeting=meeting, size=size, device=place)
                wait()
                seconds.append(time.perf_counter() - started)
            return min(seconds)
        finally:
            for process in others:
                process.join(60)
                if process.is_alive():
                    process.kill()


def _receive(receivers: list[Receiver], ready: Any, rank: int) -> None:
    place = torch.device("cuda", rank) if ON_GPU else torch.device("cpu")
    for receiver in receivers:
        ready.wait(READY_S)
        for _ in receiver(0, place):
            pass
