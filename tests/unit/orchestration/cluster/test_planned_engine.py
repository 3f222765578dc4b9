"""What an engine of a model knows before it starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_engines import IDENTITY
from plan_builders import SHAPE, experiment

from configs.models import Device
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.planned_engine import STUDENT_LOGPROBS, engine_spec


def spec(tmp_path: Path, *, k: int, accelerator: Device) -> EngineSpec:
    config = experiment()
    files: Any = SimpleNamespace(directory=tmp_path / "model", label="model", shape=SHAPE, vocab=990)
    settings = config.runtime.teacher_engine
    return engine_spec(files, IDENTITY, settings=settings, k=k, accelerator=accelerator, log_dir=tmp_path)


@pytest.mark.parametrize(
    ("k", "logprobs", "key"), [(64, 64, "teacher_engine"), (0, STUDENT_LOGPROBS, "student_engine")]
)
def test_it_keeps_as_many_log_probabilities_as_are_asked_and_names_its_own_settings(
    k: int, logprobs: int, key: str, tmp_path: Path
) -> None:
    found = spec(tmp_path, k=k, accelerator="gpu")
    assert (found.max_logprobs, found.vocab, found.dtype) == (logprobs, 990, "float32")
    assert found.memory is not None and f"runtime.{key}." in found.memory.cure


def test_on_a_cpu_the_planned_memory_is_that_of_its_process(tmp_path: Path) -> None:
    fits = [spec(tmp_path, k=4, accelerator=accelerator).memory for accelerator in ("gpu", "cpu")]
    names = [{item.name for item in fit.items} for fit in fits if fit is not None]
    assert "runtime" in names[0] and "runtime" not in names[1] and "process" in names[1]
