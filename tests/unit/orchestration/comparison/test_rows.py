"""A row is what its examinations keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from belief_builders import random_beliefs
from bench_builders import BenchPool, bench_candidate, bench_teacher, real_bench
from safetensors.numpy import save_file

from configs import ModelError
from evaluation.closeness import closeness_of, measured
from orchestration.comparison.held_out import HeldOut
from orchestration.comparison.rows import bytes_on_disk, evidence_of, row_of, stored_parameters
from orchestration.comparison.written_answers import Answering
from orchestration.outputs.artifacts import Artifacts


def test_a_row_is_what_is_kept_of_a_model(tmp_path: Path) -> None:
    bench, artifacts = real_bench(tmp_path), Artifacts(tmp_path / "runs", say=pytest.fail)
    ways = HeldOut(bench, artifacts), Answering(bench, artifacts)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"x" * 1000)
    kd = replace(bench_candidate(), directory=tmp_path / "model", method="seqkd, kd", start="untouched")
    bare = row_of(kd, ways, failures=["speed: no"])
    assert (bare.closeness, bare.answers, bare.serving, bare.failures) == (None, (), None, ("speed: no",))
    assert (bare.method, bare.start, bare.disk_bytes, bare.parameters) == ("seqkd, kd", "untouched", 1000, 1234)
    assert evidence_of(kd, ways, artifacts=artifacts) == {}
    pool: Any = BenchPool(bench_teacher(seed=1))
    ways[1].run(kd, pool)
    ways[0].keep(kd, closeness_of(random_beliefs(at, rows=3) for at in range(6)))
    row = row_of(kd, ways, failures=[])
    assert row.closeness is not None and len(row.answers) == 6
    assert set(measured(row.closeness)) >= {"forward_kl", "rouge_l", "ece"}
    assert evidence_of(kd, ways, artifacts=artifacts) == {
        ways[0].address(kd): "what held-out scoring found of kd",
        ways[1].address(kd): "what answers found of kd",
    }


def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * 70)
    (tmp_path / "model/onnx").mkdir(parents=True)
    (tmp_path / "model/weights").symlink_to(tmp_path / "blob")
    (tmp_path / "model/onnx/config").write_bytes(b"x" * 7)
    assert bytes_on_disk(tmp_path / "model") == 77


def test_parameters_are_counted_over_all_files_of_weights(tmp_path: Path) -> None:
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "model.safetensors")
    assert stored_parameters(tmp_path) == 17
    with pytest.raises(ModelError):
        stored_parameters(tmp_path / "elsewhere")
