"""`python -m benchmarks.gpu`: the floors, then every part in a process of its own, at most six minutes in all.

A part that fails or takes too long is named with its reason, and the others go on. `python -m benchmarks.gpu losses`
runs the named parts alone. Without a GPU the same runs at small sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module, metadata

import torch

from benchmarks.gpu.measure import ON_GPU, Floors, measured_floors
from configs.logs import quiet_environment

PARTS = {
    "losses": ("benchmarks.gpu.losses", "bench_losses"),
    "liger": ("benchmarks.gpu.losses", "bench_liger"),
    "steps": ("benchmarks.gpu.steps", "bench_steps"),
    "feed": ("benchmarks.gpu.steps", "bench_feed"),
    "deepspeed": ("benchmarks.gpu.engine", "bench_deepspeed"),
}

SECONDS = 350
"""For all parts together."""

SHOWN = ("torch", "triton", "transformers", "numpy", "deepspeed", "liger-kernel")


def main() -> None:
    """Read the command line; run all parts, or one in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--floors", nargs=2, type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if given.floors is not None:
        for name in given.parts:
            for line in _part(name)(Floors(*given.floors)):
                print(line, flush=True)
        return
    started = time.monotonic()
    if not ON_GPU:
        # Small tensors cost more to share between threads than to compute; the parts inherit it.
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    floors = measured_floors()
    for line in _machine(floors):
        print(line, flush=True)
    if ON_GPU:
        torch.cuda.empty_cache()
    for name in given.parts or PARTS:
        _run(name, floors=floors, seconds=SECONDS - (time.monotonic() - started))
    print(f"{time.monotonic() - started:.0f} s in all", flush=True)


def _machine(floors: Floors) -> Iterator[str]:
    name = torch.cuda.get_device_name() if ON_GPU else f"{os.cpu_count()} CPUs, no GPU: small sizes"
    versions = [
        f"{each} {metadata.version(each)}" for each in SHOWN if importlib.util.find_spec(each.replace("-", "_"))
    ]
    yield f"{name}; Python {platform.python_version()}, {', '.join(versions)}"
    yield (
        f"floors: matrix peak {floors.flops / 1e12:.1f} TFLOP/s (bfloat16, random data), memory "
        f"{floors.bandwidth / 1e9:.0f} GB/s (copy, read plus written)"
    )
    yield "not needed and not measured: vLLM, Ray, MLflow, Zarr"


def _run(name: str, *, floors: Floors, seconds: float) -> None:
    """One part in a process of its own, its lines as they come; what went wrong on a line of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", name]
    command += ["--floors", str(floors.flops), str(floors.bandwidth)]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, timeout=max(1.0, seconds), env=os.environ | quiet_environment()
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {seconds:.0f} s, no time is left", flush=True)
        return
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        print(f"{name}: failed with exit code {done.returncode}: {reason}\n{done.stderr[-4000:]}", flush=True)
    print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)


def _part(name: str) -> Callable[[Floors], Iterator[str]]:
    module, function = PARTS[name]
    part: Callable[[Floors], Iterator[str]] = getattr(import_module(module), function)
    return part


if __name__ == "__main__":
    main()
