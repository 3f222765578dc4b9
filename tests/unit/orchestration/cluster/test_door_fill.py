"""A pass over a queue in a thread of its own: it ends by itself, by an error, by a budget of time, or by who asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from fill_builders import prompts

from cache.answers import Request
from configs import CacheError, EngineError
from orchestration.cluster import door_fill, leases
from orchestration.cluster.door_fill import DoorFill
from orchestration.cluster.leases import ItemQueue
from orchestration.fill.engine_loop import FillProgress


def asked(count: int = 20) -> Iterator[tuple[int, Request]]:
    return enumerate(prompts(count))


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
        return DoorFill(asked(), token_budget=None, work=self.work, let_go=self.let_go.set)


def test_it_ends_with_what_is_asked() -> None:
    shown, unused = Shown(), threading.Event()
    fill = DoorFill(asked(), token_budget=None, work=answering, let_go=unused.set)
    assert fill.until_done(progress=shown, seconds_budget=None).rows == shown.done == 20
    assert not unused.is_set()


def test_questions_are_drawn_as_there_is_room_and_passes_are_made_until_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "DRAWN_AT_ONCE", 8)
    monkeypatch.setattr(door_fill, "POLL_S", 0.01)
    drawn, first_over = list[int](), threading.Event()

    def coming() -> Iterator[tuple[int, Request]]:
        for number, request in asked():
            assert number < 8 or first_over.wait(60)
            drawn.append(number)
            yield number, request

    def work(queue: ItemQueue[Request]) -> None:
        if not first_over.is_set():
            assert len(drawn) == 8
        answering(queue)
        first_over.set()

    fill = DoorFill(coming(), token_budget=None, work=work, let_go=lambda: None)
    # A pass that found the queue empty is followed by another as soon as there is more.
    assert fill.until_done(progress=Shown(), seconds_budget=None).rows == 20


def test_a_spent_budget_ends_it_however_many_would_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_fill, "POLL_S", 0.01)
    fill = DoorFill(asked(), token_budget=0, work=answering, let_go=lambda: None)
    assert fill.until_done(progress=Shown(), seconds_budget=None).rows == 0


@pytest.mark.parametrize("error", [EngineError("away"), CacheError("full"), KeyError("wrong")])
def test_what_went_wrong_is_raised_where_it_was_asked_for(error: Exception) -> None:
    def work(_: ItemQueue[Request]) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        DoorFill(asked(), token_budget=None, work=work, let_go=lambda: None).until_done(
            progress=Shown(), seconds_budget=None
        )
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
