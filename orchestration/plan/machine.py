"""What a speed was measured on, in words: speeds can be compared where the words are the same."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from configs.models import Device
from configs.schema import EngineSettings, TrainingSettings
from orchestration.environment import VLLM, installed_version

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What a processor that computes in bfloat16 is said to have in /proc/cpuinfo (the last on ARM)."""

LIMITS = ("max_model_len", "max_batched_tokens", "max_sequences", "kv_cache_gib")
"""Settings of an engine that its speed depends on."""


def engine_in_words(settings: EngineSettings, *, accelerator: Device, dtype: str, quantization: str | None) -> str:
    """One engine on this machine: its devices, arithmetic, program and limits."""
    parts = [
        f"{settings.ranks} x {gpu_name()}"
        if accelerator == "gpu"
        else f"{settings.cpus * settings.ranks} of {len(os.sched_getaffinity(0))} CPUs, {cpu_name()}",
        dtype if quantization is None else f"{dtype}, {quantization}",
        f"vLLM {installed_version(*VLLM)}",
        ", ".join(f"{name} {getattr(settings, name):g}" for name in LIMITS),
    ]
    return "; ".join(parts)


def group_in_words(settings: TrainingSettings, *, accelerator: Device, dtype: str) -> str:
    """One worker group: its devices, arithmetic and how it shares its work."""
    each = gpu_name() if accelerator == "gpu" else f"{settings.cpus_per_worker:g} CPUs, {cpu_name()}"
    return f"{settings.workers} workers x {each}; {dtype}; ZeRO {settings.zero_stage}"


def cpu_name() -> str:
    """The model of this machine's processors."""
    names = _cpu_facts("model name", proc=Path("/proc"))
    return names[0] if names else platform.processor() or platform.machine()


def lacks_bfloat16(proc: Path = Path("/proc")) -> bool:
    """Whether this machine's processors are known to have no instructions for bfloat16."""
    features = _cpu_facts("flags", proc=proc) or _cpu_facts("Features", proc=proc)
    return bool(features) and not BFLOAT16 & set(features[0].split())


def gpu_name() -> str:
    """The model of the first GPU that this process may use."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    try:
        listed = subprocess.run(
            [*query, f"--id={visible[0]}"] if visible else query, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "GPU of an unknown kind"
    return (listed.stdout.strip().splitlines() or ["GPU of an unknown kind"])[0]


def _cpu_facts(name: str, *, proc: Path) -> list[str]:
    """What the system says of each processor under this name; nothing where it does not tell."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
