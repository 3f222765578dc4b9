"""The queue of a fill, the budget that it keeps, and engines that it does not hear of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from local_engines import EOS, lease_queue
from ray.exceptions import ActorDiedError

from cache import GenerateRequest
from cache.answers import Request
from orchestration.cluster import leases
from orchestration.cluster.leases import LEASE, ItemQueue, RemoteLeases
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


class Watch:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def watched(engines: int) -> tuple[ItemQueue[Request], Watch]:
    clock = Watch()
    return ItemQueue(work(8), token_budget=None, engines=engines, clock=clock), clock


def test_an_engine_that_is_silent_for_too_long_holds_nothing_any_more_not_even_when_it_wakes_up() -> None:
    queue, clock = watched(3)
    for _ in range(6):
        clock.now += 2.0
        assert queue.holds(0) and queue.holds(2)
        # The second one was last heard of when the fill began, the third has ended its work.
        silent = queue.bar_silent([0, 1], after_s=10.0)
        assert silent == ([1] if clock.now > 1010.0 else [])
    assert not queue.holds(1)
    assert queue.holds(0)
    clock.now += 2.0
    assert queue.bar_silent([0], after_s=10.0) == []


def test_nobody_is_silent_when_everything_stood_still() -> None:
    queue, clock = watched(1)
    clock.now += 3600.0
    assert queue.bar_silent([0], after_s=10.0) == []
    for _ in range(3):
        clock.now += 4.0
        silent = queue.bar_silent([0], after_s=10.0)
    assert silent == [0]


def test_an_engine_asks_for_itself_and_holds_nothing_where_the_queue_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    holds = SimpleNamespace(remote=lambda engine: asked.append(engine) or True)
    queue: Any = SimpleNamespace(holds=holds)
    monkeypatch.setattr(leases.ray, "get", lambda answer: answer)
    assert RemoteLeases(queue, engine=3).holds() and asked == [3]

    def gone(_: object) -> None:
        raise ActorDiedError()

    monkeypatch.setattr(leases.ray, "get", gone)
    assert not RemoteLeases(queue, engine=3).holds()
