"""A job whose student reads other, shorter prompts than its teacher saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from training_jobs import IDENTITY

from cache.narrowed import SUFFIX, NarrowedView
from cache.protocols import RecordReader
from cache.store import TeacherCache
from cache.views import CacheView
from student_train.job import TrainJob

Prompts = dict[tuple[int, ...], tuple[int, ...]]


def shorter_prompts(view: CacheView, *, cache: RecordReader) -> Prompts:
    """One to three tokens in place of each prompt of a view."""
    (told,) = cache.iter_blocks(view, [np.arange(len(view))])
    wide = [tuple(record.token_ids[: record.prompt_len].tolist()) for record in told]
    return {prompt: tuple(3 + (number + at) % 90 for at in range(1 + number % 3)) for number, prompt in enumerate(wide)}


def narrowed_view(job: TrainJob, path: Path) -> NarrowedView:
    """A view of the job behind shorter prompts."""
    cache, view = TeacherCache.open(job.cache_root, IDENTITY), CacheView.load(path)
    return NarrowedView.of(view, cache=cache, prompts=shorter_prompts(view, cache=cache))


def narrowed_job(job: TrainJob, folder: Path) -> TrainJob:
    """The job with views that its student reads behind shorter prompts."""
    assert job.dev_view is not None
    paths = {name: folder / f"{name}{SUFFIX}" for name in ("train", "dev")}
    narrowed_view(job, job.train_view).save(paths["train"])
    narrowed_view(job, job.dev_view).save(paths["dev"])
    return replace(job, train_view=paths["train"], dev_view=paths["dev"])
