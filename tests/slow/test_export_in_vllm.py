"""What the trainer computes with a student and what vLLM serves of its export are the same distribution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance import records as taught
from engine_process import EngineProcess
from student_builders import record
from tiny_llama import MATRIX_ROWS, save_tiny_llama
from training_jobs import IDENTITY, keyed, make_job, train_all, variant

from cache.records import ScoreRequest
from cache.store import TeacherCache
from cache.views import CacheView
from configs.schema import EngineSettings
from student_train.scoring import score_view

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]

ENGINE = EngineSettings(cpus=1, max_model_len=192, max_batched_tokens=192, max_sequences=4, kv_cache_gib=0.05)
NEAR = 2e-3
"""Nats. Two float32 implementations of attention, whose sums run in another order."""


def test_the_export_in_vllm_says_what_the_trainer_computed(tmp_path: Path) -> None:
    job = variant(make_job(tmp_path), tmp_path / "job", stage={"epochs": None, "steps": 4, "select": "last"})
    cache = TeacherCache.open(job.cache_root, IDENTITY)
    rows = [keyed(record(seed, prompt=5, response=12, vocab=MATRIX_ROWS)) for seed in range(8)]
    cache.put(rows, vocab=MATRIX_ROWS)
    view = cache.view([row.key for row in rows], dataset="train", k=8)
    view.save(tmp_path / "wide.view")
    job = replace(
        job,
        model_dir=save_tiny_llama(tmp_path / "wide", seed=3),
        train_view=tmp_path / "wide.view",
        dev_view=tmp_path / "wide.view",
        vocab=MATRIX_ROWS,
    )
    ((trained, _),) = train_all((job, {}), folder=tmp_path / "group")
    ours = list(score_view(job.output_dir, cache=cache, view=CacheView.load(job.train_view), vocab=MATRIX_ROWS))
    divergence = sum(
        float((np.exp(p) * (p - row.topk_logprobs)).sum() + (np.exp(t) * (t - row.tail_logmass)).sum())
        for row in ours
        for p, t in [(row.record.topk_logprobs.astype(float), row.record.tail_logmass.astype(float))]
    )
    # The scores are those of the trainer itself: they give its own held-out loss.
    assert divergence / view.response_tokens == pytest.approx(trained.values("dev/loss")[-1], rel=1e-4)
    engine = EngineProcess(
        job.output_dir,
        identity=replace(IDENTITY, dtype="float32"),
        settings=ENGINE,
        vocab=MATRIX_ROWS,
        seed=0,
        max_logprobs=MATRIX_ROWS,
    )
    try:
        requests = [ScoreRequest(tuple(int(t) for t in row.record.token_ids), row.record.prompt_len) for row in ours]
        served = taught(engine.score(requests, k=MATRIX_ROWS))
    finally:
        engine.close()
        if engine.process.is_alive():
            engine.process.kill()
    for row, theirs in zip(ours, served, strict=True):
        whole = np.empty((row.record.response_len, MATRIX_ROWS))
        np.put_along_axis(whole, theirs.topk_ids.astype(np.int64), theirs.topk_logprobs.astype(float), axis=1)
        at_ids = np.take_along_axis(whole, row.record.topk_ids.astype(np.int64), axis=1)
        np.testing.assert_allclose(at_ids, row.topk_logprobs, rtol=0, atol=NEAR)
        np.testing.assert_allclose(theirs.target_logprobs, row.target_logprobs, rtol=0, atol=NEAR)
