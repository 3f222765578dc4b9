"""What is done for a rollout beside writing and scoring it: for the tenth of a stage, and for the thousandth.

Cached, pinned, handed over, read by a worker, let go of, held to the quota: all with the real parts, on small rollouts,
so that what grows with their number would be seen. Processor time is measured and nothing waits for a disk: how long
that takes does not depend on how many rollouts there were, and would hide the rest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.measurement import Measurement, at_most
from benchmarks.synthetic import TEACHER, zipf_rows
from cache import CacheView, TeacherCache, TeacherRecord
from orchestration.rollouts.shelf import RolloutShelf
from student_train.handoff.rollouts import Rollout, RolloutExchange

ROLLOUTS, EARLY, AROUND = 1_000, 10, 5
SEQUENCES, LENGTH, K, VOCAB = 8, 32, 16, 49_152
LARGEST_GROWTH = 1.5


def bench_rollout_books() -> Iterator[Measurement]:
    """The processor time of both, and one through the other."""
    with tempfile.TemporaryDirectory() as directory, mock.patch("os.fsync"):
        spent = _seconds(Path(directory))
    early, late = (float(np.median(spent[at - AROUND : at + AROUND])) for at in (EARLY, ROLLOUTS - AROUND))
    for number, seconds in ((EARLY, early), (ROLLOUTS, late)):
        yield Measurement(f"books of rollout {number:,}", 1e3 * seconds, "ms", digits=1)
    yield at_most(f"books of rollout {ROLLOUTS:,} / of rollout {EARLY}", late / early, LARGEST_GROWTH)


def _seconds(root: Path) -> list[float]:
    rows = zipf_rows(rows=SEQUENCES * LENGTH, k=K, vocab=VOCAB)
    cache, exchange = TeacherCache.open(root / "cache", TEACHER), RolloutExchange(root / "work")
    shelf = RolloutShelf(root / "cache", identity=TEACHER.digest(), exchange=exchange)
    spent = []
    for number in range(ROLLOUTS):
        records = [_by_student(each, number) for each in rows.records(LENGTH, seed=number)]
        begun = time.process_time()
        cache.put(records, vocab=VOCAB, rollout="bench")
        view = cache.view([each.key for each in records], dataset=f"rollout-{number:03d}", k=K)
        shelf.let_go(before=number - 1)
        shelf.hold_to(1 << 40)
        exchange.commit(_rollout(number, records=records, view=view))
        exchange.publish(number + 1, write=lambda folder: None)
        exchange.keep_behaviour(number, exchange.rollout(number).engine_logprobs)
        exchange.read_behaviour(number)
        exchange.meetings(number + 1)
        spent.append(time.process_time() - begun)
    return spent


def _by_student(record: TeacherRecord, version: int) -> TeacherRecord:
    return replace(record, finish="given", policy_version=version)


def _rollout(number: int, *, records: list[TeacherRecord], view: CacheView) -> Rollout:
    places = sum(each.response_len for each in records)
    return Rollout(
        number=number,
        version=number,
        view=view,
        samples=np.arange(len(records), dtype=np.int64),
        drawn_by_teacher=np.zeros(places, dtype=bool),
        engine_logprobs=np.zeros(places, dtype=np.float32),
        metrics={},
    )
