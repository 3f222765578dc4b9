"""Rollouts in a cache: written, and found again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rewriting_builders import DIGEST, scored_again, storage_of
from store_builders import STOP, VOCAB, make_record, open_cache

from cache.disk.manifests import Manifest
from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.upkeep.rollouts import RolloutQuotaReport, enforce_rollout_quota

STAGE = "experiment/minillm"


def written(prompt: int, *, version: int | None = 3, k: int = 8, **terms: Any) -> TeacherRecord:
    """What a student answered to a prompt, scored by the teacher."""
    tokens = [3, 4, prompt, 20, 21, 22, STOP]
    return make_record(tokens, prompt_len=3, k=k, **{"finish": "given", "version": version, **terms})


def put_rollouts(root: Path, *records: TeacherRecord) -> None:
    """A segment a record."""
    for record in records:
        open_cache(root).put([record], vocab=VOCAB, rollout=STAGE)


def the_students(record: TeacherRecord, *, k: int) -> TeacherRecord:
    """The same text, by a student."""
    return dataclasses.replace(scored_again(record, k=k), policy_version=7)


def rollouts_of(cache: TeacherCache) -> list[Manifest]:
    """Manifests of rollouts, the oldest first."""
    return sorted((item for item in cache._library.manifests if item.rollout), key=lambda item: item.order)


def enforce(root: Path, limit: int, **terms: Any) -> RolloutQuotaReport:
    return enforce_rollout_quota(storage_of(root), identity=DIGEST, max_bytes=limit, **{"grace_s": -1.0, **terms})
