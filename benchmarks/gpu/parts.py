"""The parts of `python -m benchmarks.gpu`, each of which runs in a process of its own and is told the floors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.gpu.measure import Floors
from benchmarks.measurement import Row

PARTS = {
    "losses": ("benchmarks.gpu.losses", "bench_losses"),
    "liger": ("benchmarks.gpu.losses", "bench_liger"),
    "steps": ("benchmarks.gpu.steps", "bench_steps"),
    "feed": ("benchmarks.gpu.feed", "bench_feed"),
    "deepspeed": ("benchmarks.gpu.engine", "bench_deepspeed"),
    "checkpoint": ("benchmarks.gpu.engine", "bench_checkpoint"),
    "broadcast": ("benchmarks.gpu.weights", "bench_broadcast"),
}
"""By name; the most telling first, for when time runs out."""


def run_part(name: str, flops: float, bandwidth: float) -> Iterator[Row]:
    """What a part says, on a device with these floors."""
    module, function = PARTS[name]
    part: Callable[[Floors], Iterator[Row]] = getattr(import_module(module), function)
    return part(Floors(flops, bandwidth))
