"""A row is what its examinations keep; its numbers have names in MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_builders import BenchPool, bench_candidate, bench_teacher, real_bench
from result_builders import model_results, random_beliefs

from evaluation.closeness import closeness_of, measured
from evaluation.ratios import ratio_stderr
from orchestration.comparison.held_out import HeldOut
from orchestration.comparison.rows import closeness_numbers, evidence_of, metrics_of, row_of, tokens_per_s
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


def test_metrics_have_their_tracking_names() -> None:
    row = model_results("kd", answers=("Paris is it.", "Paris is not."))
    found = metrics_of(row)
    assert found.keys() == {
        *(
            f"eval/test/{name}"
            for name in (
                "forward_kl", "forward_kl_stderr", "reverse_kl", "top1_agreement", "topk_agreement", "perplexity",
                "brier", "ece", "rouge_l", "length_ratio", "distinct_1", "distinct_2", "self_bleu", "tokens_per_s",
            )
        ),
        "eval/parameters",
    }  # fmt: skip
    assert found["eval/test/tokens_per_s"] == 215.4 and found["eval/parameters"] == 99e6
    assert row.closeness is not None
    kl = measured(row.closeness)["forward_kl"]
    assert found["eval/test/forward_kl"] == kl.value
    assert found["eval/test/forward_kl_stderr"] == ratio_stderr(kl.sums[:, 0], kl.sums[:, 1])


def test_what_was_not_measured_or_is_undefined_has_no_name() -> None:
    nothing = model_results("kd", answers=(), closeness=None, serving=None)
    assert metrics_of(nothing) == {"eval/parameters": 99e6}
    assert (closeness_numbers(nothing), tokens_per_s(nothing)) == ({}, None)
    one = model_results("kd", closeness=closeness_of([random_beliefs(1, rows=3)]))
    assert "forward_kl_stderr" not in closeness_numbers(one), "of one sequence there is none"
