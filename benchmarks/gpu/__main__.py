"""`python -m benchmarks.gpu`: the floors, then every part in a process of its own, at most six minutes in all.

A part that fails or finds no time is named with its reason, and the others go on. `python -m benchmarks.gpu losses`
runs the named parts alone. Without a GPU the same runs at small sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.gpu.measure import ON_GPU, SIDE, Floors, measured_floors
from benchmarks.gpu.parts import PARTS
from benchmarks.machine import describe_machine
from benchmarks.measurement import Measurement
from benchmarks.running import Benchmark, run_all
from benchmarks.table import Table

SECONDS = 350
"""For all parts together."""

SHOWN = ("torch", "triton", "transformers", "numpy", "deepspeed", "liger-kernel", "zarr")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""On a CPU small tensors cost more to share between threads than to compute."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; 0, 1 if a part did not come to its end, 130 if somebody interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="One GPU against its own floors.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    started = time.monotonic()
    if not ON_GPU:
        torch.set_num_threads(1)
    device = f"{torch.cuda.get_device_name()}, " if ON_GPU else "no GPU, so small sizes: "
    table, floors = Table(), measured_floors()
    table.begin(machine=device + describe_machine(versions=SHOWN))
    table.group("floors")
    for row in _rows(floors):
        table.add(row)
    if ON_GPU:
        # The parts need it, and this process does not any more.
        torch.cuda.empty_cache()
    parts = [
        Benchmark(
            name, "benchmarks.gpu.parts", "run_part",
            arguments=(name, floors.flops, floors.bandwidth), environment={} if ON_GPU else ONE_THREAD,
        )
        for name in given.parts or PARTS
    ]  # fmt: skip
    try:
        run_all(parts, table=table, seconds=lambda: SECONDS - (time.monotonic() - started))
    except KeyboardInterrupt:
        return 130
    finally:
        table.end()
    return 1 if table.failed else 0


def _rows(floors: Floors) -> list[Measurement]:
    note = f"{SIDE} x {SIDE}, random data: zeros would run faster"
    return [
        Measurement("matrix peak, bfloat16", floors.flops / 1e12, "TFLOP/s", digits=1, note=note),
        Measurement("memory, read plus written by a copy", floors.bandwidth / 1e9, "GB/s", digits=0),
    ]


if __name__ == "__main__":
    sys.exit(main())
