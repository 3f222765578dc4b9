"""What the parts share: the two floors of the device, timing on its own clock, and how often the host waited."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.kd_step import wait
from benchmarks.measurement import Measurement, at_most
from benchmarks.pair import device

ON_GPU = torch.cuda.is_available()
ROUNDS = 9 if ON_GPU else 3
SIDE = 8192 if ON_GPU else 1024
"""Of the matrices whose product is the floor."""


@dataclass(frozen=True, slots=True)
class Floors:
    """What the device does at best: operations a second of a bfloat16 product, bytes a second read plus written."""

    flops: float
    bandwidth: float


def measured_floors() -> Floors:
    """Both, from a large product of random matrices and a large copy (zeros would run faster than real data)."""
    elements = 2**31 if ON_GPU else 2**25
    first, second = (torch.randn(SIDE, SIDE, device=device()).bfloat16() for _ in range(2))
    source = torch.randint(-128, 127, (elements,), dtype=torch.int8, device=device())
    target = torch.empty_like(source)
    seconds = median_seconds({"product": lambda: first @ second, "copy": lambda: target.copy_(source)})
    return Floors(2 * SIDE**3 / (seconds["product"] or 1.0), 2 * elements / (seconds["copy"] or 1.0))


def median_seconds(contenders: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, float | None]:
    """The median run of each, in turns, after two that do not count; None for what found no room in memory."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    failed: set[str] = set()
    for number in range(rounds + 2):
        for name, run in contenders.items():
            if name in failed:
                continue
            try:
                taken = _seconds(run)
            except torch.OutOfMemoryError:
                failed.add(name)
                torch.cuda.empty_cache()
                continue
            if number > 1:
                times[name].append(taken)
    return {name: None if name in failed else statistics.median(taken) for name, taken in times.items()}


def host_waits(run: Callable[[], object]) -> int | None:
    """How often the host stopped to wait for the GPU; None without one."""
    if not ON_GPU:
        return None
    wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def busy_seconds(run: Callable[[], object]) -> float | None:
    """How long kernels and copies ran on the GPU in one run, added up; None without one."""
    if not ON_GPU:
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        wait()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def judged(what: str, value: float, target: float, **rest: Any) -> Measurement:
    """A ratio that should be small on a GPU; the small sizes without one say too little for a target."""
    return at_most(what, value, target, **rest) if ON_GPU else Measurement(what, value, **rest)


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.0f} %"


def _seconds(run: Callable[[], object]) -> float:
    if not ON_GPU:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
