"""A view, and a job, as a made-up student of another tokenizer reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from student_builders import VOCAB

from cache.views import CacheView
from student_train.feed.retokenised import Retokenised
from student_train.job import TrainJob


def read_by_two(view: CacheView) -> Retokenised:
    """A student that cuts after every second byte, where each token of the teacher is one byte."""
    draw = np.random.default_rng(0)
    tokens, offsets, prompts, theirs, ours = [], [0], [], [], []
    for total, prompt in zip(view.lengths.tolist(), view.prompt_len.tolist(), strict=True):
        answer = total - prompt
        ends = np.unique(np.append(np.arange(2, answer + 1, 2), answer)).astype(np.int32)
        tokens.append(draw.integers(3, VOCAB, size=prompt + 1 + len(ends)))
        offsets.append(offsets[-1] + len(tokens[-1]))
        prompts.append(prompt + 1)
        theirs.append(np.arange(1, answer + 1, dtype=np.int32))
        ours.append(ends)
    return Retokenised(
        view=view,
        token_ids=np.concatenate(tokens).astype(np.int32),
        token_offsets=np.array(offsets, np.int64),
        prompt_len=np.array(prompts, np.int32),
        teacher_ends=np.concatenate(theirs),
        student_ends=np.concatenate(ours),
        vocabulary=np.where(np.arange(VOCAB) % 5 == 0, -1, np.arange(VOCAB)).astype(np.int32),
    )


def retokenised_job(job: TrainJob, folder: Path) -> TrainJob:
    """The job with views that such a student reads."""
    assert job.dev_view is not None
    paths = {name: folder / f"{name}.safetensors" for name in ("train", "dev")}
    read_by_two(CacheView.load(job.train_view)).save(paths["train"])
    read_by_two(CacheView.load(job.dev_view)).save(paths["dev"])
    return replace(job, train_view=paths["train"], dev_view=paths["dev"], retokenised=True, vocab=VOCAB)
