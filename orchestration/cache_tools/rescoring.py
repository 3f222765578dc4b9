"""`distill cache verify --rescore N`: is what the cache keeps still what the teacher says?

A sample of cached sequences is scored again by the live teacher, of several teachers by each its own. An engine's
numbers depend a little on which other sequences share its batches, so the same rows are scored a second time, a few at
a time and in another order: what the two live passes differ by is the control, and the cache should differ from the
first pass by little more than that and its own quantisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import ScoreRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from configs import CacheError, DistillConfig, EngineError
from configs.models import Device
from evaluation.closeness import closeness_of, measured
from evaluation.metric import Measured
from evaluation.ratios import ratio_stderr
from orchestration.cache_tools.configured_teachers import configured_teachers
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.nodes import cluster_hardware
from orchestration.cluster.planned_engine import engine_spec
from orchestration.cluster.private import cluster
from orchestration.comparison.held_out import shared_beliefs
from orchestration.inputs.preflight import require_compiler
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import Teacher, open_cache
from orchestration.plan.hardware import hardware_of

CONTROL_ROWS = 3
"""Sequences that share a batch in the second pass."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """KL in nats a token and top-1 agreement: a live teacher against its cache, and against itself (the control).

    `name` is what the experiment calls it.
    """

    name: str
    identity: str
    rows: int
    tokens: int
    k: int
    kl: float
    kl_stderr: float
    top1_agreement: float
    control_kl: float
    control_kl_stderr: float
    control_top1_agreement: float


def rescore(
    config: DistillConfig, *, config_dir: Path, rows: int, log_dir: Path, prefix: str | None = None, seed: int = 0
) -> list[Rescored]:
    """Score up to `rows` cached sequences of each teacher of `config` again, twice.

    Those teachers alone whose identity begins with `prefix`, where one is given.

    Raises:
        CacheError: of one of them nothing is cached with log-probabilities.
        DistillError: a teacher cannot be opened or served.
    """
    config = resolve_paths(config, config_dir=config_dir)
    hardware = hardware_of(config, ask_cluster=cluster_hardware)
    require_compiler(hardware.accelerator)
    teachers = configured_teachers(config, prefix)
    # All of them before an engine starts.
    cached = {name: _cached_rows(config, name, teacher, rows=rows, seed=seed) for name, teacher in teachers.items()}
    found = []
    with cluster(address=config.runtime.ray_address, gpus=hardware.gpus_per_node):
        for name, teacher in teachers.items():
            pool = _pool(config, teacher, cached[name], accelerator=hardware.accelerator, log_dir=log_dir)
            try:
                found.append(score_twice(cached[name], pool=pool, name=name, identity=teacher.by_weights, seed=seed))
            finally:
                pool.release()
    return found


def score_twice(
    cached: Sequence[TeacherRecord], *, pool: EnginePool, name: str, identity: TeacherIdentity, seed: int
) -> Rescored:
    """Score cached sequences with the live teacher of this name, and once more in other batches.

    Raises:
        EngineError: the teacher cannot score one of them any more.
    """
    k = max(record.k for record in cached)
    live = _scored(pool, cached, groups=[np.arange(len(cached))], k=k)
    shuffled = np.random.default_rng(seed).permutation(len(cached))
    control = _scored(pool, cached, groups=np.array_split(shuffled, -(-len(cached) // CONTROL_ROWS)), k=k)
    against_cache, against_itself = _compare(cached, live), _compare(live, control)
    return Rescored(
        name=name,
        identity=identity.digest(),
        rows=len(cached),
        tokens=sum(record.response_len for record in cached),
        k=k,
        kl=against_cache["forward_kl"].value,
        kl_stderr=_stderr(against_cache["forward_kl"]),
        top1_agreement=against_cache["top1_agreement"].value,
        control_kl=against_itself["forward_kl"].value,
        control_kl_stderr=_stderr(against_itself["forward_kl"]),
        control_top1_agreement=against_itself["top1_agreement"].value,
    )


def _cached_rows(config: DistillConfig, name: str, teacher: Teacher, *, rows: int, seed: int) -> list[TeacherRecord]:
    """A sample of what the cache of the teacher of this name has log-probabilities of.

    Raises:
        CacheError: that is nothing.
    """
    found = _cached(open_cache(config.of_teacher(name), teacher), rows=rows, seed=seed)
    if not found:
        raise CacheError(
            f"{config.runtime.cache_root} holds no log-probabilities of {name} {teacher.identity.digest()[:12]}: name "
            "the --config of a filled experiment, or the identity of another of its teachers"
        )
    return found


def _pool(
    config: DistillConfig, teacher: Teacher, cached: Sequence[TeacherRecord], *, accelerator: Device, log_dir: Path
) -> EnginePool:
    spec = engine_spec(
        teacher.files,
        teacher.by_weights,
        settings=config.runtime.teacher_engine,
        k=max(record.k for record in cached),
        accelerator=accelerator,
        log_dir=log_dir,
    )
    return EnginePool(spec)


def _cached(cache: TeacherCache, *, rows: int, seed: int) -> list[TeacherRecord]:
    """Up to `rows` cached sequences with log-probabilities; records of draws have counts in their place."""
    found = cache.get_many(cache.sample(rows, k=1, seed=seed))
    return [record for record in found if record is not None and record.response_len and record.counts is None]


def _scored(
    pool: EnginePool, records: Sequence[TeacherRecord], *, groups: Sequence[np.ndarray], k: int
) -> list[TeacherRecord]:
    """The live teacher's rows of these sequences, asked for group by group, given back in the order of `records`."""
    found: list[TeacherRecord | None] = [None] * len(records)
    for group in groups:
        requests = [ScoreRequest(tuple(records[at].token_ids.tolist()), records[at].prompt_len) for at in group]
        for at, outcome in zip(group.tolist(), pool.answer(requests, k=k).outcomes, strict=True):
            if isinstance(outcome, Failure):
                raise EngineError(f"the teacher could not score {records[at].key.hex()[:12]} again: {outcome.reason}")
            found[at] = outcome
    return [record for record in found if record is not None]


def _compare(kept: Sequence[TeacherRecord], live: Sequence[TeacherRecord]) -> dict[str, Measured]:
    return measured(closeness_of(shared_beliefs(one, other) for one, other in zip(kept, live, strict=True)))


def _stderr(ratio: Measured) -> float:
    return ratio_stderr(ratio.sums[:, 0], ratio.sums[:, 1])
