"""A fill with signals asks for what is missing and nothing else, reads every text once, and keeps what it bought."""

from __future__ import annotations

import os
from pathlib import Path

import local_signals
import pytest
from killed_passes import EngineThatIsKilled
from local_engines import IDENTITY
from local_signals import (
    ALL,
    LONGEST,
    STATE,
    LocalSignals,
    SignalFilling,
    WatchedSignals,
    signal_set,
    texts,
)
from signal_builders import CLASSES, ask, assert_same_signal, respond

from cache import SignalRequest
from cache.disk.spending import Spent
from configs import BudgetReached, EngineError
from orchestration.fill.fill import Budgets
from orchestration.fill.ledger import read_counts
from orchestration.fill.signals import WantedSignals, by_text, items_of
from orchestration.plan.signal_requests import SignalSet


@pytest.fixture
def filling(tmp_path: Path) -> SignalFilling:
    return SignalFilling(tmp_path / "cache")


def test_misses_become_hits_and_are_what_the_teacher_says(filling: SignalFilling) -> None:
    part = signal_set(8)
    engines = LocalSignals()
    result = filling.fill(part, engines=engines)
    records = filling.records(part)
    assert len(records) == 24 == result.rows
    for request, record in zip(part.requests, records, strict=True):
        assert_same_signal(record, respond(request, width=record.width, identity=IDENTITY))
    assert result.failed == {} and result.stored_bytes > 0
    # Each text is read once, whatever is asked of it.
    assert len(engines.teacher.read) == 8
    assert result.teacher_tokens == 8 * 5 == read_counts(filling.ledger).fill
    again = LocalSignals()
    assert filling.fill(part, engines=again).rows == 0
    assert again.budgets == []


def test_only_what_is_new_is_asked(filling: SignalFilling) -> None:
    filling.fill(signal_set(4, CLASSES), engines=LocalSignals())
    engines = LocalSignals()
    filling.fill(signal_set(6, CLASSES, STATE), engines=engines)
    asked = {(request.token_ids[0] - 100, request.signal) for request in engines.teacher.asked}
    assert asked == {(at, STATE) for at in range(6)} | {(4, CLASSES), (5, CLASSES)}


def test_a_text_of_two_sets_is_read_once(filling: SignalFilling) -> None:
    engines = LocalSignals()
    sets = (signal_set(3, CLASSES, name="train"), signal_set(3, STATE, first=1, name="transfer"))
    result = filling.fill(*sets, engines=engines)
    assert len(engines.teacher.read) == 4
    assert (result.rows, result.teacher_tokens) == (6, 20)


def test_a_failure_costs_its_request_and_its_reason_is_kept(filling: SignalFilling, tmp_path: Path) -> None:
    long = SignalSet("train", (*texts(2), *texts(1, first=9, tokens=LONGEST + 1)), ALL)
    engines = LocalSignals()
    result = filling.fill(long, engines=engines)
    assert {request.signal for request in result.failed} == set(ALL)
    assert set(result.failed.values()) == {"13 tokens, and the model reads 12"}
    assert len(filling.records(long)) == 6
    # Nothing was read of the long text, and nothing is counted for it.
    assert result.teacher_tokens == 10
    again, refused = LocalSignals(), filling.failures()
    assert filling.fill(long, engines=again, refused=refused).failed == result.failed
    assert again.budgets == []


def test_an_answer_that_cannot_be_kept_is_a_failure_and_is_paid_for(filling: SignalFilling) -> None:
    class Stranger(WatchedSignals):
        def answer(self, request: SignalRequest) -> object:  # type: ignore[override]
            return respond(request, scale=1.0)

    result = filling.fill(signal_set(2, CLASSES), engines=LocalSignals(Stranger()))
    assert ["its key is not that of" in reason for reason in result.failed.values()] == [True] * 2
    assert result.teacher_tokens == 10 and result.rows == 0


def test_each_width_has_segments_of_its_own_that_share_what_was_spent(filling: SignalFilling) -> None:
    filling.fill(signal_set(4), engines=LocalSignals())
    manifests = filling.cache._library.manifests
    # Classes and tags are 6 wide, states 4.
    assert sorted((m.k, m.rows) for m in manifests) == [(4, 4), (6, 8)]
    seconds = {m.k: Spent.of(m.provenance).seconds for m in manifests}
    assert seconds[6] == pytest.approx(2 * seconds[4], rel=1e-4)
    assert {m.licence for m in manifests} == {"cc0"}
    assert {m.provenance["model"] for m in manifests} == {"fake"}


def test_an_engine_that_dies_keeps_what_it_had_finished(filling: SignalFilling) -> None:
    died: list[int] = []

    def at_pass(count: int) -> None:
        if count == 3 and not died:
            died.append(count)
            raise EngineError("out of memory")

    engines = LocalSignals(WatchedSignals(at_pass=at_pass))
    part = signal_set(6)
    result = filling.fill(part, engines=engines)
    assert len(filling.records(part)) == 18 == result.rows
    # The text that was under way was not answered: all others are read once.
    assert len(engines.teacher.read) == 6
    assert result.teacher_tokens == 30


def test_engines_that_die_without_progress_end_the_fill(filling: SignalFilling) -> None:
    def refuse(_: int) -> None:
        raise EngineError("no memory")

    engines = LocalSignals(WatchedSignals(at_pass=refuse))
    with pytest.raises(EngineError, match="no memory"):
        filling.fill(signal_set(3), engines=engines)
    assert len(engines.budgets) == 1
    silent = LocalSignals(texts_a_pass=0)
    with pytest.raises(EngineError, match="9 rows still missing; see their logs"):
        filling.fill(signal_set(3), engines=silent)


@pytest.mark.parametrize(("budget", "texts_read"), [(1, 0), (5, 1), (14, 2), (15, 3)])
def test_a_token_budget_counts_a_text_once(budget: int, texts_read: int, filling: SignalFilling) -> None:
    part = signal_set(4)
    with pytest.raises(BudgetReached, match=f"{12 - 3 * texts_read} rows are still missing"):
        filling.fill(part, engines=LocalSignals(), budgets=Budgets(budget, None))
    assert len(filling.records(part)) == 3 * texts_read
    assert read_counts(filling.ledger).fill == 5 * texts_read


@pytest.mark.slow
@pytest.mark.parametrize(("commit_before", "die_before"), [(99, 0), (99, 4), (1, 1), (3, 5), (5, 6)])
def test_a_killed_engine_loses_only_what_it_had_not_committed(
    commit_before: int, die_before: int, filling: SignalFilling, tmp_path: Path
) -> None:
    part = signal_set(7)
    engines = EngineThatIsKilled(tmp_path, local_signals.__file__, commit_before, die_before, healthy=LocalSignals())
    committed = commit_before if commit_before <= die_before else 0
    if not committed:
        with pytest.raises(EngineError, match="was killed"):
            filling.fill(part, engines=engines)
        assert filling.records(part) == []
    result = filling.fill(part, engines=engines)
    assert [request.token_ids[0] - 100 for request in engines.healthy.teacher.read] == list(range(committed, 7))
    assert len(filling.records(part)) == 21 == result.rows
    assert filling.cache.verify() == []
    # What was read before the kill is paid for, and what was not committed is read and paid for again.
    assert read_counts(filling.ledger).fill == 5 * (die_before + 7 - committed)
    staging = filling.root / IDENTITY.digest() / "staging"
    assert all(os.path.isdir(staging / name) for name in os.listdir(staging))


def test_requests_about_one_text_stand_together_and_go_to_one_engine(filling: SignalFilling) -> None:
    a, b = ask([1, 2], CLASSES), ask([3], CLASSES)
    requests = [a, b, ask([1, 2], STATE), ask([1, 2], CLASSES, split=1)]
    assert by_text(requests) == [(a, ask([1, 2], STATE)), (b,), (ask([1, 2], CLASSES, split=1),)]
    wanted = WantedSignals(requests, filling.cache, filling.order())
    (work,) = wanted.open_work(failed={b})
    assert work.requests == (a, ask([1, 2], STATE), ask([1, 2], CLASSES, split=1))
    assert list(items_of(enumerate(work.requests, start=4))) == [
        (4, (a, ask([1, 2], STATE))),
        (6, (ask([1, 2], CLASSES, split=1),)),
    ]
