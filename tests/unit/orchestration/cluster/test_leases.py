"""The queue of a fill, the budget that it keeps, and whose what it hands out is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from local_engines import EOS, lease_queue

from cache import GenerateRequest
from cache.answers import Request
from orchestration.cluster import leases
from orchestration.cluster.leases import LEASE, Feed, ItemQueue, RemoteLeases
from orchestration.fill.engine_loop import FillProgress


def work(count: int, *, limit: int = 8) -> list[tuple[int, Request]]:
    """Requests of at most 10 tokens each."""
    request = GenerateRequest((3, 4), stop_ids=(EOS,), max_new_tokens=limit)
    return [(number, request) for number in range(count)]


def test_a_queue_hands_out_leases_in_order_until_it_is_empty_or_stopped() -> None:
    queue = lease_queue(work(LEASE + 3), token_budget=None)
    assert [number for number, _ in queue.lease()] == list(range(LEASE))
    assert [number for number, _ in queue.lease()] == [LEASE, LEASE + 1, LEASE + 2]
    assert queue.lease() == []
    assert queue.handed_out() == list(range(LEASE + 3))
    stopped = lease_queue(work(3), token_budget=None)
    assert stopped.report(FillProgress(rows=1)) is False
    stopped.stop()
    assert stopped.lease() == [] and stopped.report(FillProgress(rows=2)) is True
    assert stopped.progress().rows == 3


def test_a_budget_keeps_room_for_the_longest_answers_of_what_is_under_way() -> None:
    queue = lease_queue(work(5), token_budget=25)
    assert [number for number, _ in queue.lease()] == [0, 1]
    assert queue.lease() == []
    # One answer took 4 of its 10 tokens: 4 + 10 under way + 10 fit 25, and another 10 would not.
    queue.report(FillProgress(forward_tokens=4, settled_tokens=10))
    assert [number for number, _ in queue.lease()] == [2]
    assert queue.lease() == []


def test_more_items_come_behind_the_others_and_the_queue_says_whether_a_lease_would_give_one() -> None:
    queue = lease_queue(work(1), token_budget=15)
    assert queue.add([]) == (1, True)
    assert [number for number, _ in queue.lease()] == [0]
    assert queue.add([]) == (0, False)
    # Ten tokens are under way, and as many would not fit the budget.
    assert queue.add(work(2)) == (2, False)
    queue.report(FillProgress(forward_tokens=3, settled_tokens=10))
    assert queue.add([]) == (2, True)
    queue.stop()
    assert queue.add([]) == (2, False)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> ItemQueue[Request]:
    """A queue of three items, to which two are added at once."""
    monkeypatch.setattr(leases, "DRAWN_AT_ONCE", 2)
    return lease_queue(work(3), token_budget=None)


def test_items_are_drawn_while_fewer_wait_than_engines_may_need(near: ItemQueue[Request]) -> None:
    coming = iter([(number, request) for number, request in work(100) if number >= 3])
    feed = Feed(near.add, coming, ahead=4)
    assert feed.top_up() and feed.top_up()
    assert next(coming)[0] == 5, "two were drawn, once"
    assert [number for number, _ in near.lease()] == [0, 1, 2, 3, 4]
    assert feed.top_up() and next(coming)[0] == 8


def test_a_feed_is_over_when_all_is_drawn_and_nothing_waits(near: ItemQueue[Request]) -> None:
    asked = []
    feed = Feed(lambda more: (asked.append(more), near.add(more))[1], iter(work(1)), ahead=100)
    assert feed.top_up() and feed.top_up()
    near.lease()
    assert not feed.top_up()
    asked.clear()
    assert not feed.top_up() and asked == []


def test_whoever_draws_from_a_queue_beside_it_holds_what_it_drew() -> None:
    assert lease_queue(work(3), token_budget=None).holds()


@pytest.mark.parametrize("lives", [True, False])
def test_an_engine_holds_what_it_drew_as_long_as_it_is_not_given_up(lives: bool) -> None:
    life: Any = SimpleNamespace(holds=lambda: lives)
    queue: Any = None
    assert RemoteLeases(queue, life).holds() == lives
