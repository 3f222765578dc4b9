"""A teacher behind a door in the place of engines: the same rows, whatever the door does on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB, LocalEngines, fake_teacher
from served_teachers import ServedTeacher, serving

from cache import ScoreRequest, TeacherRecord
from cache.protocols import Failure
from configs import BudgetReached, DoorError
from orchestration.cluster.door_pool import DoorPool
from orchestration.fill.fill import Budgets
from orchestration.fill.ledger import read_counts
from orchestration.plan.requests import plan_fill
from orchestration.rollouts.mixture import sample_rollout
from orchestration.rollouts.sequence import RolloutPrompt, Sampling
from orchestration.rollouts.turns import Turns
from teacher_server import FakeTeacher
from teacher_server.http.wire import ENGINES_DIED, decode_records, encode_records
from teacher_server.requests import Asked

PART = teacher_set(prompts(20))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedTeacher]:
    facts = {"vocab": VOCAB, "stop_ids": (EOS,), "max_model_len": MAX_MODEL_LEN}
    with serving(tmp_path, IDENTITY, **facts) as opened:  # type: ignore[arg-type]
        yield opened


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path / "cache")


def pool_of(served: ServedTeacher, **changes: Any) -> DoorPool:
    return DoorPool(served.door(**changes), IDENTITY, vocab=VOCAB)


def assert_same(ours: list[TeacherRecord], theirs: list[TeacherRecord]) -> None:
    """Every field, to the bit."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in TeacherRecord.__slots__:
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_rows_are_those_of_engines_of_ones_own(served: ServedTeacher, filling: Filling, tmp_path: Path) -> None:
    scored = replace(PART, requests=tuple(ScoreRequest((number, 5, 6, 7), 1) for number in range(3, 12)))
    pool = pool_of(served)
    result = filling.fill(PART, scored, engines=pool)
    pool.release()
    own = Filling(tmp_path / "own")
    wanted = own.fill(PART, scored, engines=LocalEngines())
    for part in (PART, scored):
        assert_same(filling.records(part), own.records(part))
    # They are counted as if an engine had been asked here.
    assert result.rows == 29
    assert (result.response_tokens, result.teacher_tokens) == (wanted.response_tokens, wanted.teacher_tokens)


def test_who_has_the_rows_asks_nobody(served: ServedTeacher, filling: Filling) -> None:
    filling.fill(PART, engines=LocalEngines())
    pool = pool_of(served)
    assert filling.fill(PART, engines=pool).rows == 0
    assert served.moods.questions == 0


def test_a_door_that_is_away_for_a_while_only_delays_a_fill(served: ServedTeacher, filling: Filling) -> None:
    served.moods.away = 5
    assert filling.fill(PART, engines=pool_of(served)).rows == 20
    assert served.moods.away == 0


def test_a_door_that_stays_away_is_one_error_and_the_next_fill_goes_on(served: ServedTeacher, filling: Filling) -> None:
    served.moods.spoil, served.moods.from_question = (lambda _: None), 4
    with pytest.raises(DoorError, match=r"^noise behind 127\.0\.0\.1:\d+: the door refused /v1/generate: status 503"):
        filling.fill(PART, engines=pool_of(served, budget_s=0.3))
    kept = len(filling.records(PART))
    assert 0 < kept <= 8
    served.moods.spoil = None
    asked_before = served.moods.questions
    assert filling.fill(PART, engines=pool_of(served)).rows == 20 - kept
    # Two rows a question.
    assert served.moods.questions - asked_before == -(-(20 - kept) // 2)


def spoilt(change: Callable[[TeacherRecord], TeacherRecord], *, identity: str = IDENTITY.digest()) -> Any:
    """A door whose answers are changed on the way."""

    def spoil(body: bytes) -> bytes:
        rows = decode_records(body, identity=IDENTITY.digest())
        return encode_records(
            [replace(each, outcome=change(each.outcome)) for each in rows],  # type: ignore[arg-type]
            identity=identity,
        )

    return spoil


def with_nan(record: TeacherRecord) -> TeacherRecord:
    assert record.topk_logprobs is not None
    broken = record.topk_logprobs.copy()
    broken[-1, -1] = np.nan
    return replace(record, topk_logprobs=broken)


def shifted(record: TeacherRecord) -> TeacherRecord:
    assert record.topk_ids is not None and record.topk_logprobs is not None and record.tail_logmass is not None
    rows = {name: np.roll(getattr(record, name), 1, axis=0) for name in ("topk_ids", "topk_logprobs", "tail_logmass")}
    return replace(record, **rows)


def unchanged(record: TeacherRecord) -> TeacherRecord:
    return record


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoilt(with_nan), "NaN"),
        (spoilt(shifted), "not those of their tokens"),
        (spoilt(unchanged, identity="f" * 64), "answered and not"),
        (lambda body: body[:-9], "damaged|ends within"),
        (lambda _: b"<html>", "not an answer of ours"),
    ],
)
def test_a_door_that_lies_stops_the_fill_and_nothing_wrong_is_kept(
    served: ServedTeacher, filling: Filling, tmp_path: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    served.moods.spoil, served.moods.from_question = spoil, 3
    with pytest.raises(DoorError, match=said):
        filling.fill(PART, engines=pool_of(served))
    # Nobody insists on an answer that cannot be.
    assert served.moods.questions <= 6
    own = Filling(tmp_path / "own")
    own.fill(PART, engines=LocalEngines())
    right = {record.key: record for record in own.records(PART)}
    kept = filling.records(PART)
    assert len(kept) <= 6
    assert_same(kept, [right[record.key] for record in kept])


def test_rows_that_engines_behind_the_door_die_of_are_asked_again(served: ServedTeacher, filling: Filling) -> None:
    """They say nothing of the teacher, so they are not among what it cannot answer."""
    reason = f"3 {ENGINES_DIED}; the last: out of memory"

    def spoil(body: bytes) -> bytes:
        first, *others = decode_records(body, identity=IDENTITY.digest())
        return encode_records([replace(first, outcome=Failure(reason)), *others], identity=IDENTITY.digest())

    served.moods.spoil, served.moods.from_question = spoil, 4
    with pytest.raises(DoorError, match=reason):
        filling.fill(PART, engines=pool_of(served))
    assert 0 < len(filling.records(PART)) < 20
    served.moods.spoil = None
    result = filling.fill(PART, engines=pool_of(served))
    assert len(filling.records(PART)) == 20 and result.failed == {}


def test_another_teacher_by_now_is_refused_before_anything_is_asked(served: ServedTeacher, filling: Filling) -> None:
    door = served.door()
    other = replace(IDENTITY, weights_sha256="c" * 64)
    pool = DoorPool(door, other, vocab=VOCAB)
    with pytest.raises(
        DoorError, match=f"it is {IDENTITY.digest()[:12]} by now, and this run asks {other.digest()[:12]}"
    ):
        filling.fill(PART, engines=pool)
    assert served.moods.questions == 0


def test_a_budget_of_tokens_is_kept(served: ServedTeacher, filling: Filling) -> None:
    with pytest.raises(BudgetReached):
        filling.fill(PART, engines=pool_of(served), budgets=Budgets(60, None))
    assert 0 < read_counts(filling.ledger).fill <= 60
    assert len(filling.records(PART)) >= 60 // 14 - 1


def test_whoever_stops_waits_for_no_door_and_keeps_what_was_answered(served: ServedTeacher, filling: Filling) -> None:
    """The door falls silent after four questions, and somebody presses Ctrl-C."""
    silent = threading.Event()

    def spoil(_: bytes) -> bytes | None:
        silent.set()
        return None

    served.moods.spoil, served.moods.from_question = spoil, 4

    class Pressed:
        def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
            if silent.is_set():
                raise KeyboardInterrupt

    pool = pool_of(served, budget_s=600.0)
    plan = plan_fill([PART], cache=filling.cache)
    work = list(enumerate(request for part in plan.sets for request in part.sequences.requests))
    order = replace(filling.order(), k=4)
    with pytest.raises(KeyboardInterrupt):
        pool.fill(work, order, progress=Pressed(), token_budget=None, seconds_budget=None)  # type: ignore[arg-type]
    assert 0 < len(filling.records(PART)) <= 8


def test_what_a_comparison_asks_is_counted_and_not_kept(served: ServedTeacher, filling: Filling) -> None:
    pool = DoorPool(served.door(), IDENTITY, vocab=VOCAB, ledger=filling.ledger)
    asked = [ScoreRequest((4, 5, 6), 1), ScoreRequest((4, 5, 7), 2)]
    answers = pool.answer(asked, k=3)
    wanted = [outcome for _, outcome in fake_teacher().score(asked, k=3)]
    assert_same(list(answers.outcomes), wanted)  # type: ignore[arg-type]
    assert read_counts(filling.ledger).evaluation == 6
    assert filling.cache.lookup(asked, k=3) == [None, None]
    with pytest.raises(DoorError, match="speed of a teacher behind a door is not measured"):
        pool.answer_alone([], k=0)
    with pytest.raises(DoorError, match="speed of a teacher behind a door is not measured"):
        pool.forget_prefixes()
    with pytest.raises(DoorError, match="memory of a teacher behind a door"):
        pool.occupancy()
    pool.release()


def test_a_rollout_asks_in_turns(served: ServedTeacher) -> None:
    pool = pool_of(served)
    (engine,) = pool.engines()
    asked = [(number, Asked(request, 0)) for number, request in enumerate(prompts(6))]
    found = dict(engine.turn(asked, leave=2))
    assert len(found) >= 4
    found |= dict(engine.turn([(9, Asked(ScoreRequest((4, 5, 6), 1), 2))], leave=0))
    assert set(found) == {*range(6), 9}
    engine.finish()
    pool.sleep()
    pool.release()
    assert (pool.capacity, pool.shares_processor, pool.block_tokens) == (4, False, 16)


@dataclass
class Here:
    """Engines of a rollout in this process."""

    source: FakeTeacher
    block_tokens: int = 16
    capacity: int = 16
    shares_processor: bool = False

    def engines(self) -> list[Turns]:
        return [Turns(self.source)]


def test_a_rollout_that_a_door_writes_and_scores_for_is_that_of_own_engines(served: ServedTeacher) -> None:
    learner = replace(IDENTITY, weights_sha256="c" * 64)
    student = FakeTeacher(learner, vocab=VOCAB, seed=1, eos_id=EOS, max_model_len=MAX_MODEL_LEN)
    asked = [RolloutPrompt((number, number), number=number) for number in range(3, 9)]
    sampling = Sampling(alpha=0.4, seed=(1, 2), version=0, max_new_tokens=10, stop_ids=(EOS,), k=4)
    found = []
    for teacher in (Here(fake_teacher()), pool_of(served)):
        spent: list[int] = []
        samples, tally = sample_rollout(
            asked, student=Here(student), teacher=teacher, sampling=sampling, spend=spent.append
        )
        assert tally.teacher_tokens and not tally.failures
        found.append((samples, sum(spent)))
    (own, own_spent), (far, far_spent) = found
    assert_same([each.record for each in far], [each.record for each in own])
    assert far_spent == own_spent


def test_a_door_that_is_gone_ends_a_rollout_at_once(served: ServedTeacher) -> None:
    served.moods.spoil = lambda _: None
    (engine,) = pool_of(served, budget_s=0.3).engines()
    with pytest.raises(DoorError, match="status 503"):
        engine.turn([(0, Asked(prompts(1)[0], 0))], leave=0)
    engine.finish()
