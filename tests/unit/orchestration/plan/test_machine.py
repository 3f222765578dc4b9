"""What a speed was measured on, in words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from configs.schema import EngineSettings, TrainingSettings
from orchestration.plan.machine import cpu_name, engine_in_words, gpu_name, group_in_words, lacks_bfloat16

SETTINGS = EngineSettings(count=3, pipeline_parallel=2, cpus=2, kv_cache_gib=0.5)


def test_an_engine_on_cpus_names_them_and_its_limits() -> None:
    words = engine_in_words(SETTINGS, accelerator="cpu", dtype="float32", quantization=None)
    cpus = len(os.sched_getaffinity(0))
    assert words.startswith(f"4 of {cpus} CPUs, {cpu_name()}; float32; vLLM ")
    limits = "max_model_len 1024, max_batched_tokens 1024, max_sequences 64, kv_cache_gib 0.5"
    assert words.endswith(f"; {limits}")


def test_a_worker_group_names_its_devices() -> None:
    settings = TrainingSettings(workers=3, cpus_per_worker=0.5, zero_stage=1)
    words = group_in_words(settings, accelerator="cpu", dtype="float32")
    assert words == f"3 workers x 0.5 CPUs, {cpu_name()}; float32; ZeRO 1"


@pytest.mark.parametrize(
    "changed", [{"cpus": 4}, {"max_sequences": 8}, {"max_batched_tokens": 2048}, {"kv_cache_gib": 1.0}]
)
def test_what_changes_the_speed_changes_the_words(changed: dict[str, float]) -> None:
    one, other = (
        engine_in_words(settings, accelerator="cpu", dtype="float32", quantization=None)
        for settings in (SETTINGS, SETTINGS.model_copy(update=changed))
    )
    assert one != other
    # How many engines a pool has does not matter to the one that is timed.
    more = engine_in_words(
        SETTINGS.model_copy(update={"count": 9}), accelerator="cpu", dtype="float32", quantization=None
    )
    assert more == one


def test_an_engine_on_gpus_names_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ncase "$*" in *--id=3*) echo "GPU of the third slot";; *) echo "GPU of the first";; esac\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    words = engine_in_words(SETTINGS, accelerator="gpu", dtype="bfloat16", quantization="fp8")
    assert words.startswith("2 x GPU of the third slot; bfloat16, fp8; vLLM ")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_name() == "GPU of the first"
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_name() == "GPU of an unknown kind"


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", False),
        ("Features\t: fp asimd\n", True),
        ("processor\t: 0\n", False),
    ],
)
def test_a_processor_says_whether_it_computes_in_bfloat16(said: str, lacks: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(said)
    assert lacks_bfloat16(tmp_path) == lacks
    # Nobody is told anything where nothing is known.
    assert not lacks_bfloat16(tmp_path / "nowhere")
