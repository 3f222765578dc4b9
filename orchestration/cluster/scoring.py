"""Held-out scoring of a student in a process of its own, on whatever device the cluster gives it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.identity import Identity
from cache.opening import open_rows
from configs import DistillError, TrainingError
from configs.models import Device
from evaluation.closeness import TokenBeliefs, closeness_of
from evaluation.results import Closeness
from orchestration.cluster.task import Apart, run_apart
from orchestration.outputs.redirect import redirect_output
from student_train.scoring import HeldOutRow, score_view

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """One model against one view."""

    model_dir: Path
    cache_root: Path | str
    identity: Identity
    view: Path
    vocab: int
    dtype: str
    accelerator: Device
    log_file: Path


def score_students(jobs: list[ScoringJob], *, cpus: int) -> list[Closeness | DistillError]:
    """Score several models, one after the other in one process; of one that cannot be scored, why.

    Raises:
        TrainingError: the process died.
    """
    if not jobs:
        return []
    return run_apart(
        _score_all,
        jobs,
        apart=Apart("held-out scoring", TrainingError, jobs[0].accelerator, cpus, jobs[0].log_file),
    )


def _score_all(jobs: list[ScoringJob]) -> list[Closeness | DistillError]:
    redirect_output(jobs[0].log_file)
    return [_score_or_why_not(job) for job in jobs]


def _score_or_why_not(job: ScoringJob) -> Closeness | DistillError:
    try:
        return _score(job)
    except DistillError as error:
        return error


def _score(job: ScoringJob) -> Closeness:
    view, cache = open_rows(job.view, root=job.cache_root, identity=job.identity)
    rows = score_view(
        job.model_dir,
        cache=cache,
        view=view,
        vocab=job.vocab,
        dtype=job.dtype,
        device="cuda" if job.accelerator == "gpu" else "cpu",
        tokens_per_batch=TOKENS_PER_BATCH,
    )
    return closeness_of(_beliefs(row) for row in rows)


def _beliefs(row: HeldOutRow) -> TokenBeliefs:
    teacher = row.record
    assert teacher.topk_ids is not None and teacher.topk_logprobs is not None and teacher.tail_logmass is not None
    return TokenBeliefs(
        teacher_topk=teacher.topk_logprobs,
        teacher_tail=teacher.tail_logmass,
        student_topk=row.topk_logprobs,
        student_tail=row.tail_logmass,
        student_target=row.target_logprobs,
        target_ids=teacher.response_ids,
        teacher_ids=teacher.topk_ids,
        own_ids=row.own_ids,
        own_best=row.own_best,
    )
