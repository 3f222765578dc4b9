"""Scores of a model on held-out sequences, against the plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from combined_builders import mixture
from student_builders import PADDED, VOCAB
from training_jobs import IDENTITY, make_job
from transformers import AutoModelForCausalLM

from cache.combined import CombinedCache
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import ModelError
from student_train.job import TrainJob
from student_train.scoring import OWN_IDS, score_view


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    job = make_job(tmp_path_factory.mktemp("job"))
    assert job.dev_view is not None
    return replace(job, train_view=job.dev_view)


@pytest.mark.parametrize("tokens", [1, 30, 4096])
def test_scores_equal_the_plain_model(job: TrainJob, tokens: int) -> None:
    cache, view = TeacherCache.open(job.cache_root, IDENTITY), CacheView.load(job.train_view)
    model = AutoModelForCausalLM.from_pretrained(job.model_dir)
    rows = list(score_view(job.model_dir, cache=cache, view=view, vocab=VOCAB, tokens_per_batch=tokens))
    assert [row.record.key for row in rows] == [key.tobytes() for key in view.keys]
    for row in rows:
        record = row.record
        with torch.no_grad():
            logits = model(torch.from_numpy(record.token_ids).long()[None]).logits[0]
        q = logits.double().log_softmax(1)[record.prompt_len - 1 : -1].numpy()
        assert record.topk_ids is not None
        kept = np.take_along_axis(q, record.topk_ids, axis=1)
        np.testing.assert_allclose(row.topk_logprobs, kept, atol=1e-4)
        np.testing.assert_allclose(row.target_logprobs, q[np.arange(len(q)), record.response_ids], atol=1e-4)
        np.testing.assert_array_equal(row.own_ids, np.argsort(-q, axis=1)[:, :OWN_IDS])
        np.testing.assert_allclose(row.own_best, q.max(axis=1), atol=1e-4)
        np.testing.assert_allclose(row.entropy, -(np.exp(q) * q).sum(axis=1), atol=1e-4)
        np.testing.assert_allclose(np.exp(row.tail_logmass), 1 - np.exp(kept).sum(axis=1), atol=1e-5)


def test_a_model_with_fewer_tokens_than_the_teacher_is_refused(job: TrainJob, tmp_path: Path) -> None:
    cache, view = TeacherCache.open(job.cache_root, IDENTITY), CacheView.load(job.train_view)
    with pytest.raises(ModelError, match=f"has {PADDED} tokens but the teacher's tokenizer has {PADDED + 1}"):
        list(score_view(job.model_dir, cache=cache, view=view, vocab=PADDED + 1))


def test_a_mixture_is_scored_at_the_tokens_that_its_teachers_know_in_common(job: TrainJob) -> None:
    combined = mixture(job.cache_root, CacheView.load(job.train_view))
    cache = CombinedCache(job.cache_root, [combined])
    model = AutoModelForCausalLM.from_pretrained(job.model_dir)
    filled = 0
    for row in score_view(job.model_dir, cache=cache, view=combined.rows, vocab=VOCAB):
        record = row.record
        assert record.topk_ids is not None
        with torch.no_grad():
            logits = model(torch.from_numpy(record.token_ids).long()[None]).logits[0]
        q = logits.double().log_softmax(1)[record.prompt_len - 1 : -1].numpy()
        held = record.topk_ids >= 0
        kept = np.where(held, np.take_along_axis(q, np.maximum(record.topk_ids, 0), axis=1), -np.inf)
        np.testing.assert_allclose(row.topk_logprobs, kept, atol=1e-4)
        np.testing.assert_allclose(np.exp(row.tail_logmass), 1 - np.exp(kept).sum(axis=1), atol=1e-5)
        filled += int((~held).sum())
    assert filled > 0
