"""A teacher with a head behind a door in the place of engines: the same signals, whatever the door does on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fill_builders import UNLIMITED
from served_heads import ServedHeadDoor, serving_head
from served_teachers import TOKEN_ENV
from task_pipeline_builders import TaskPlace, task_place

from cache import Signal, SignalRecord, SignalRequest, TeacherCache
from cache.protocols import Failure
from configs import BudgetReached, ConfigError, DoorError
from orchestration.cluster.signal_door_pool import SignalDoorPool
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, FillResult, fill_signals
from orchestration.fill.ledger import read_counts
from orchestration.inputs.signal_doors import SignalDoor
from orchestration.inputs.task_teachers import TaskTeacher, open_task_teacher
from orchestration.inputs.task_texts import ReadExample
from orchestration.inputs.tasks import load_task
from orchestration.outputs.console import StageProgress
from orchestration.plan.signal_requests import SignalSet, SignalWidths, plan_signals
from teacher_server.features import SignalModel
from teacher_server.http.signals.texts import ReadText
from teacher_server.http.signals.wire import decode_signals, encode_signals
from teacher_server.http.wire import ENGINES_DIED

CLASSES, STATE = Signal("class_logits"), Signal("state", layer=1, position="mean")
TEXTS = tuple(ReadExample((3, 4 + at % 5, 4 + at // 5), 3, (), (), (), cut=False) for at in range(20))


@pytest.fixture
def place(tmp_path: Path) -> TaskPlace:
    return task_place(tmp_path)


@pytest.fixture
def teacher(place: TaskPlace) -> TaskTeacher:
    config = place.run.config
    return open_task_teacher(config, load_task(config.task).config)


@pytest.fixture
def served(place: TaskPlace, teacher: TaskTeacher, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedHeadDoor]:
    with serving_head(place.root, teacher) as opened:
        monkeypatch.setenv(TOKEN_ENV, opened.token)
        yield opened


class Filling:
    """A cache of signals that a door fills."""

    def __init__(self, place: TaskPlace, teacher: TaskTeacher) -> None:
        self.root, self.ledger, self._place = place.root / "cache", place.root / "ledger", place
        self.teacher = teacher
        self.requests = tuple(SignalRequest(t.token_ids, t.split, s) for t in TEXTS for s in (CLASSES, STATE))

    @property
    def cache(self) -> TeacherCache:
        return TeacherCache.open(self.root, self.teacher.identity)

    def pool(self, served: ServedHeadDoor, *, teacher: TaskTeacher | None = None, **changes: Any) -> SignalDoorPool:
        wanted = self._place.run.config.teacher
        return SignalDoorPool(SignalDoor(served.place(**changes), teacher or self.teacher, wanted))

    def fill(self, pool: SignalDoorPool, *, budgets: Budgets = UNLIMITED) -> FillResult[SignalRequest]:
        widths = SignalWidths(2, self.teacher.model.hidden)
        sets = [SignalSet("train", TEXTS, (CLASSES, STATE))]
        plan = plan_signals(sets, cache=self.cache.signals, widths=widths, encoding="signal-f32")
        order = FillOrder(
            True, self.root, 0, 1e6, "mit", {"served_by": "there"}, self.ledger, encoding="signal-f32", gpus=0.0
        )
        progress = StageProgress("fill", total=None, unit="signals", started=time.monotonic())
        return fill_signals(plan, cache=self.cache, engines=pool, order=order, budgets=budgets, progress=progress)

    def records(self) -> list[SignalRecord]:
        signals = self.cache.signals
        return [each for each in signals.get_many(signals.keys(self.requests)) if each is not None]


@pytest.fixture
def filling(place: TaskPlace, teacher: TaskTeacher) -> Filling:
    return Filling(place, teacher)


def test_signals_are_those_of_an_engine_of_ones_own(served: ServedHeadDoor, filling: Filling) -> None:
    pool = filling.pool(served)
    pool.check(filling.requests)
    result = filling.fill(pool)
    pool.release()
    assert (result.rows, result.teacher_tokens) == (40, 60)  # a text is read once, whatever is asked of it
    own = dict(SignalModel(filling.teacher.directory, filling.teacher.identity).signals(filling.requests))
    for at, record in enumerate(filling.records()):
        wanted = own[at]
        assert isinstance(wanted, SignalRecord) and (record.key, record.signal) == (wanted.key, wanted.signal)
        np.testing.assert_allclose(record.values, wanted.values, atol=1e-5)
    # Who has them asks nobody.
    before = served.moods.questions
    assert filling.fill(filling.pool(served)).rows == 0 and served.moods.questions == before


def test_a_door_that_is_away_for_a_while_only_delays_a_fill(served: ServedHeadDoor, filling: Filling) -> None:
    served.moods.away = 5
    assert filling.fill(filling.pool(served)).rows == 40
    assert served.moods.away == 0


def test_another_teacher_is_refused_before_anything_is_asked(served: ServedHeadDoor, filling: Filling) -> None:
    other = replace(filling.teacher, identity=replace(filling.teacher.identity, weights_sha256="c" * 64))
    with pytest.raises(ConfigError, match="has other weights"):
        filling.pool(served, teacher=other).check(filling.requests)
    assert served.moods.questions == 0


def spoilt(
    change: Callable[[SignalRecord], SignalRecord | Failure], *, identity: str, answering: str | None = None
) -> Callable[[bytes], bytes]:
    """A door whose first answer of each body is changed on the way, and who says to be `answering` if that is given."""

    def spoil(body: bytes) -> bytes:
        rows = decode_signals(body, identity=identity)
        texts = [ReadText(tuple(r.outcome.token_ids.tolist()), r.outcome.split) for r in rows[::2]]  # type: ignore[union-attr]
        rows[0] = replace(rows[0], outcome=change(rows[0].outcome))  # type: ignore[arg-type]
        return encode_signals(rows, texts, [CLASSES, STATE], identity=answering or identity)

    return spoil


def with_nan(record: SignalRecord) -> SignalRecord:
    return replace(record, values=np.full_like(record.values, np.nan))


def unchanged(record: SignalRecord) -> SignalRecord:
    return record


@pytest.mark.parametrize(
    ("change", "answering", "said"),
    [(with_nan, None, "finite|NaN"), (unchanged, "f" * 64, "answered and not")],
)
def test_a_door_that_lies_stops_the_fill_and_the_next_one_goes_on(
    served: ServedHeadDoor, filling: Filling, change: Any, answering: str | None, said: str
) -> None:
    identity = filling.teacher.identity.digest()
    served.moods.spoil = spoilt(change, identity=identity, answering=answering)
    with pytest.raises(DoorError, match=rf"teacher behind 127\.0\.0\.1:\d+: .*({said})"):
        filling.fill(filling.pool(served))
    assert filling.records() == []
    served.moods.spoil = None
    assert filling.fill(filling.pool(served)).rows == 40


def test_signals_that_engines_behind_the_door_die_of_are_asked_again(served: ServedHeadDoor, filling: Filling) -> None:
    """They say nothing of the teacher, so they are not among what it cannot answer."""
    reason = f"3 {ENGINES_DIED}; the last: out of memory"
    served.moods.spoil = spoilt(lambda _: Failure(reason), identity=filling.teacher.identity.digest())
    with pytest.raises(DoorError, match=reason):
        filling.fill(filling.pool(served))
    assert len(filling.records()) < 40
    served.moods.spoil = None
    result = filling.fill(filling.pool(served))
    assert len(filling.records()) == 40 and result.failed == {}


def test_a_budget_of_tokens_is_kept(served: ServedHeadDoor, filling: Filling) -> None:
    with pytest.raises(BudgetReached):
        filling.fill(filling.pool(served), budgets=Budgets(30, None))
    assert read_counts(filling.ledger).fill == 30
    assert len(filling.records()) == 20
