"""Views that span the caches of two teachers, the second of which is made up beside a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from student_builders import VOCAB, record
from training_jobs import IDENTITY

from cache.combined import CombinedView, Part
from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.views import CacheView
from student_train.job import TrainJob

OTHER = TeacherIdentity(weights_sha256="c" * 64, config_sha256="d" * 64)


def scored_by_other(told: Sequence[TeacherRecord], *, k: int = 8) -> list[TeacherRecord]:
    """What another teacher believes of the same sequences."""
    made = []
    for number, one in enumerate(told):
        beliefs = record(77_000 + number, prompt=one.prompt_len, response=one.response_len, k=k)
        key = sequence_key(OTHER.digest(), one.token_ids, one.prompt_len)
        made.append(replace(beliefs, key=key, token_ids=one.token_ids, target_logprobs=_target(one, beliefs)))
    return made


def mixture(cache_root: Path | str, view: CacheView, *, shares: tuple[float, float] = (0.75, 0.25)) -> CombinedView:
    """The rows of a view of the first teacher, mixed with what another one says of them."""
    (told,) = TeacherCache.open(cache_root, IDENTITY).iter_blocks(view, [np.arange(len(view))])
    scored, cache = scored_by_other(told), TeacherCache.open(cache_root, OTHER)
    cache.put(scored, vocab=VOCAB, encoding="topk-f16")
    of_other = cache.view([each.key for each in scored], dataset=view.dataset, k=8)
    places = np.arange(len(view))
    parts = (Part(IDENTITY, shares[0], view, places), Part(OTHER, shares[1], of_other, places))
    return CombinedView(view.dataset, parts)


def mixed_job(job: TrainJob, folder: Path, *, shares: tuple[float, float] = (0.75, 0.25)) -> TrainJob:
    """The job with views that are mixtures."""
    assert job.dev_view is not None
    paths = {}
    for name, path in {"train": job.train_view, "dev": job.dev_view}.items():
        paths[name] = folder / f"{name}.combined"
        mixture(job.cache_root, CacheView.load(path), shares=shares).save(paths[name])
    return replace(job, train_view=paths["train"], dev_view=paths["dev"])


def _target(one: TeacherRecord, beliefs: TeacherRecord) -> np.ndarray:
    """Log-probabilities of the tokens that came next: as ranked, or one that fits into the tail."""
    assert beliefs.topk_ids is not None and beliefs.topk_logprobs is not None and beliefs.tail_logmass is not None
    ranked = beliefs.topk_ids == one.response_ids[:, None]
    least = np.minimum(beliefs.tail_logmass, beliefs.topk_logprobs[:, -1]) - 1.0
    found = np.where(ranked, beliefs.topk_logprobs, -np.inf).max(axis=1)
    return np.asarray(np.where(ranked.any(axis=1), found, least), dtype=np.float32)
