"""What a student of another tokenizer reads: steps as of any view, and the teacher's beliefs beside its own tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from retokenised_builders import read_by_two
from training_jobs import IDENTITY, make_job

from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import CacheError, DataError
from configs.stages import StageConfig
from student_train.feed.retokenised import Retokenised
from student_train.feed.steps import Feed, StepBatch, training_batches
from student_train.job import TrainJob
from student_train.losses.aligned import align
from student_train.losses.alignment import common_chunks
from student_train.worker_group import WorkerGroup

STAGE = StageConfig(objective="span_likelihood", steps=3, tokens_per_step=60)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def texts(job: TrainJob) -> Retokenised:
    return read_by_two(CacheView.load(job.train_view))


def steps(job: TrainJob, texts: Retokenised, *, world: int, rank: int, with_targets: bool = True) -> list[StepBatch]:
    feed = Feed(
        cache=TeacherCache.open(job.cache_root, IDENTITY),
        view=texts.sizes,
        group=WorkerGroup(rank, world, torch.device("cpu")),
        micro_batch_tokens=40,
        with_targets=with_targets,
        packs=True,
        texts=texts,
    )
    return list(feed.steps(training_batches(STAGE, view=texts.sizes, first=0, steps=3)))


def test_a_batch_holds_the_students_tokens_and_the_teachers_beliefs_of_its_rows(
    job: TrainJob, texts: Retokenised
) -> None:
    cache = TeacherCache.open(job.cache_root, IDENTITY)
    lengths = np.diff(texts.token_offsets)
    for step in steps(job, texts, world=1, rank=0):
        assert step.tokens == sum(int(lengths[row]) for rows in step.rows for row in rows)
        assert step.response_tokens == sum(len(micro.labels) for micro in step.batches)
        for micro, rows in zip(step.batches, step.rows, strict=True):
            (told,) = cache.iter_blocks(texts.view, [rows])
            labels: list[int] = []
            at = 0
            assert micro.targets is None and micro.aligned is not None
            for row, record in zip(rows.tolist(), told, strict=True):
                first, last = texts.token_offsets[row] + texts.prompt_len[row], texts.token_offsets[row + 1]
                own = texts.token_ids[first:last]
                labels += own.tolist()
                ends = np.unique(np.append(np.arange(2, record.response_len + 1, 2), record.response_len))
                chunks = common_chunks(np.arange(1, record.response_len + 1), ends)
                expected = align(record, chunks, vocabulary=texts.vocabulary, positions=len(own))
                assert torch.equal(micro.aligned.begins[at : at + len(own)], expected.begins)
                assert torch.equal(micro.aligned.exact[at : at + len(own)], expected.exact)
                at += len(own)
            assert micro.labels.tolist() == labels


def test_processes_share_a_step_whatever_their_number(job: TrainJob, texts: Retokenised) -> None:
    alone = steps(job, texts, world=1, rank=0)
    first, second = (steps(job, texts, world=2, rank=rank) for rank in (0, 1))
    for whole, one, two in zip(alone, first, second, strict=True):
        assert whole.response_tokens == one.response_tokens == two.response_tokens
        assert len(one.batches) == len(two.batches)
        assert sorted(np.concatenate(one.rows + two.rows).tolist()) == sorted(np.concatenate(whole.rows).tolist())
        exact = [sum(int(m.aligned.exact.sum()) for m in s.batches if m.aligned is not None) for s in (whole, one, two)]
        assert exact[0] == exact[1] + exact[2]


def test_text_alone_brings_no_beliefs(job: TrainJob, texts: Retokenised) -> None:
    for step in steps(job, texts, world=1, rank=0, with_targets=False):
        assert all(micro.aligned is None and micro.targets is None for micro in step.batches)


def test_it_is_kept_and_its_name_holds_all_of_it(texts: Retokenised, tmp_path: Path) -> None:
    texts.save(tmp_path / "texts.safetensors")
    again = Retokenised.load(tmp_path / "texts.safetensors")
    assert again.digest == texts.digest == again.sizes.digest and len(again) == len(texts.view)
    assert texts.digest != texts.view.digest
    other = texts.vocabulary.copy()
    other[1] = -1
    assert replace(texts, vocabulary=other).digest != texts.digest
    ends = texts.student_ends.copy()
    ends[0] += 1
    assert replace(texts, student_ends=ends).digest != texts.digest


def test_what_cannot_be_is_refused(texts: Retokenised, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a row has no prompt, or no answer"):
        replace(texts, prompt_len=np.zeros_like(texts.prompt_len))
    with pytest.raises(DataError, match=r"ends for .* response tokens"):
        replace(texts, teacher_ends=texts.teacher_ends[1:])
    with pytest.raises(DataError, match="token_offsets do not lead through 16 rows"):
        replace(texts, token_offsets=texts.token_offsets[:-1])
    with pytest.raises(CacheError, match="no retokenised view can be read there"):
        Retokenised.load(tmp_path / "none")
    texts.save(tmp_path / "texts")
    damaged = bytearray((tmp_path / "texts").read_bytes())
    damaged[damaged.find(texts.token_ids.tobytes())] ^= 1
    (tmp_path / "texts").write_bytes(damaged)
    with pytest.raises(CacheError, match="differs from its digest"):
        Retokenised.load(tmp_path / "texts")
