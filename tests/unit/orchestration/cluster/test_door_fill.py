"""A pass over a queue in a thread of its own: it ends by itself, by an error, by a budget of time, or by who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from fill_builders import prompts

from cache.answers import Request
from configs import CacheError, EngineError
from orchestration.cluster.door_fill import DoorFill
from orchestration.cluster.leases import ItemQueue
from orchestration.fill.engine_loop import FillProgress


def queue() -> ItemQueue[Request]:
    return ItemQueue(list(enumerate(prompts(20))), token_budget=None)


class Shown:
    """What was shown last; `at` is called each time."""

    def __init__(self, at: Callable[[], None] = lambda: None) -> None:
        self.done, self._at = 0.0, at

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        self.done = done
        self._at()


def answering(queue: ItemQueue[Request]) -> None:
    while leased := queue.lease():
        queue.report(FillProgress(rows=len(leased)))


class Silent:
    """Answers one lease, and then waits until it is let go, of which it dies as a broken connection does."""

    def __init__(self, error: Exception) -> None:
        self.let_go, self.waits, self._error = threading.Event(), threading.Event(), error

    def work(self, queue: ItemQueue[Request]) -> None:
        queue.report(FillProgress(rows=len(queue.lease())))
        self.waits.set()
        assert self.let_go.wait(60)
        assert queue.lease() == []
        raise self._error

    def fill(self) -> DoorFill[Request]:
        return DoorFill(queue(), work=self.work, let_go=self.let_go.set)


def test_it_ends_with_the_queue() -> None:
    shown, unused = Shown(), threading.Event()
    done = DoorFill(queue(), work=answering, let_go=unused.set).until_done(progress=shown, seconds_budget=None)
    assert done.rows == shown.done == 20
    assert not unused.is_set()


@pytest.mark.parametrize("error", [EngineError("away"), CacheError("full"), KeyError("wrong")])
def test_what_went_wrong_is_raised_where_it_was_asked_for(error: Exception) -> None:
    def work(_: ItemQueue[Request]) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        DoorFill(queue(), work=work, let_go=lambda: None).until_done(progress=Shown(), seconds_budget=None)
    assert raised.value is error


def test_after_its_time_the_door_is_let_go_and_that_is_no_error() -> None:
    silent = Silent(EngineError("closed"))
    done = silent.fill().until_done(progress=Shown(), seconds_budget=0.0)
    assert silent.let_go.is_set() and done.rows == 16


def test_what_cannot_be_written_is_an_error_also_then() -> None:
    with pytest.raises(CacheError, match="full"):
        Silent(CacheError("full")).fill().until_done(progress=Shown(), seconds_budget=0.0)


def test_whoever_stops_lets_the_door_go() -> None:
    silent = Silent(EngineError("closed"))

    def press() -> None:
        if silent.waits.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        silent.fill().until_done(progress=Shown(press), seconds_budget=None)
    assert silent.let_go.is_set()
