"""A process goes back to what it was before its first stage, and gives back what a stage held."""

from __future__ import annotations

import os
import weakref

import psutil
import pytest
import torch

from student_train.training.between_stages import ProcessSettings, free_memory
from student_train.worker_group import peak_memory_gib


def test_settings_are_restored_whatever_a_stage_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAYS", "as it was")
    before = ProcessSettings.now()
    try:
        os.environ.update({"STAYS": "changed", "LEFT": "here"})
        torch.set_num_threads(before.threads + 1)
        torch.set_default_dtype(torch.bfloat16)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        monkeypatch.setattr(torch.nn.functional, "linear", lambda *given: torch.ones(1))
        changed = ProcessSettings.now()
        assert all(getattr(changed, name) != getattr(before, name) for name in before.__slots__)
    finally:
        before.restore()
    assert ProcessSettings.now() == before


def test_memory_that_objects_in_a_circle_held_goes_back_to_the_system() -> None:
    class Engine:
        def __init__(self) -> None:
            self.itself = self
            self.weights = torch.ones(64 * 2**20)

    engine = Engine()
    weights = weakref.ref(engine.weights)
    held = psutil.Process().memory_info().rss
    assert peak_memory_gib(torch.device("cpu")) >= held / 2**30 * 0.99
    del engine
    free_memory()
    assert weights() is None
    assert psutil.Process().memory_info().rss < held - 200 * 2**20
    # The next stage's peak is its own.
    assert peak_memory_gib(torch.device("cpu")) < (held - 200 * 2**20) / 2**30
