"""What a checkpoint belongs to."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from task_jobs import make_task_job, task_variant
from training_jobs import make_job, variant

from student_train.job import TrainJob

SCORED = {"objective": "kd", "rollout": {"count": 1}}


def test_a_stage_is_another_one_when_what_it_learns_changes_and_not_where_it_lies(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    ours = job.stage_digest()
    assert variant(job, tmp_path / "elsewhere", settings={"micro_batch_tokens": 50}).stage_digest() == ours
    assert variant(job, tmp_path, stage={"learning_rate": 1e-4}).stage_digest() != ours
    assert replace(job, vocab=job.vocab + 1).stage_digest() != ours
    # Without `pretrain` the text of another stage is of no account.
    assert replace(job, plain_text="1").stage_digest() == ours


def test_a_stage_of_a_task_is_another_one_when_what_it_learns_changes_and_not_where_it_lies(tmp_path: Path) -> None:
    job = make_task_job(tmp_path)
    ours = job.stage_digest()
    assert task_variant(job, tmp_path / "elsewhere", settings={"micro_batch_tokens": 50}).stage_digest() == ours
    assert replace(job, sets={}, train_examples=tmp_path / "moved").stage_digest() == ours
    others = [
        task_variant(job, tmp_path, stage={"learning_rate": 1e-4}),
        replace(job, labels=job.labels[::-1]),
        replace(job, kind="tagging"),
    ]
    assert ours not in {other.stage_digest() for other in others}
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_job_travels_between_processes(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_checkpoint_belongs_to_what_the_text_says_and_not_to_its_path(tmp_path: Path) -> None:
    def job(path: str, digest: str) -> TrainJob:
        fields = SCORED | {"epochs": None, "warmup_steps": 0, "pretrain": {"path": path}}
        return replace(variant(base, tmp_path / "other", stage=fields), plain_text=digest)

    base = make_job(tmp_path)
    ours = job("a.jsonl", "1").stage_digest()
    assert ours == job("b.jsonl", "1").stage_digest()
    assert ours != job("a.jsonl", "2").stage_digest()
