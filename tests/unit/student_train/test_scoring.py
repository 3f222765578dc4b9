"""Scores of a model on held-out sequences, against the plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from combined_builders import mixture
from student_builders import PADDED, VOCAB, record
from training_jobs import IDENTITY, keyed, make_job
from transformers import AutoModelForCausalLM

from cache.combined import CombinedCache
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import ModelError
from student_train import scoring
from student_train.feed.microbatch import MicroBatch, collate
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


@pytest.fixture
def ragged(tmp_path: Path) -> tuple[TeacherCache, CacheView]:
    """Some long rows among many short ones, as answers are."""
    answers = [40, 3, 4, 5, 3, 28, 4, 6, 3, 3, 5, 4, 3, 7, 4, 3]
    rows = [keyed(record(at, prompt=2, response=answer, k=8)) for at, answer in enumerate(answers)]
    cache = TeacherCache.open(tmp_path / "cache", IDENTITY)
    cache.put(rows, vocab=VOCAB)
    return cache, cache.view([row.key for row in rows], dataset="ragged", k=8)


@pytest.mark.parametrize("packs", [True, False])
def test_rows_that_are_read_together_have_the_scores_of_rows_alone_and_little_padding(
    job: TrainJob, ragged: tuple[TeacherCache, CacheView], monkeypatch: pytest.MonkeyPatch, packs: bool
) -> None:
    cache, view = ragged
    computed: list[int] = []

    def counted(*args: Any, **terms: Any) -> MicroBatch:
        batch = collate(*args, **terms)
        computed.append(batch.input_ids.numel())
        return batch

    monkeypatch.setattr(scoring, "collate", counted)
    monkeypatch.setattr(scoring, "can_pack", lambda _: packs)
    alone = list(score_view(job.model_dir, cache=cache, view=view, vocab=VOCAB, tokens_per_batch=1))
    read = sum(computed)
    assert read == int((np.asarray(view.lengths) - 1).sum())
    computed.clear()
    together = list(score_view(job.model_dir, cache=cache, view=view, vocab=VOCAB, tokens_per_batch=4096))
    assert sum(computed) < (1.2 if packs else 1.5) * read < len(view) * max(view.lengths) / 3
    assert [row.record.key for row in together] == [row.record.key for row in alone]
    for ours, theirs in zip(together, alone, strict=True):
        for name in ("topk_logprobs", "tail_logmass", "target_logprobs", "own_best", "entropy"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(ours.own_ids, theirs.own_ids)


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
