"""Turns of an engine: what is taken in, what may stay behind, and what is dropped."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from cache import ScoreRequest
from cache.protocols import Failure, Outcome
from orchestration.rollouts.turns import Tagged, Turns
from teacher_server.requests import Asked


class Stepping:
    """Takes in what there is before each step, and finishes the oldest request in each."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.closed = 0

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        positions: list[int] = []
        source, taken = iter(asked), 0
        try:
            while True:
                while (each := next(source)) is not None:
                    assert isinstance(each.request, ScoreRequest)
                    self.seen.append(each.request.token_ids)
                    positions.append(taken)
                    taken += 1
                yield [(positions.pop(0), Failure("done"))] if positions else []
        finally:
            self.closed += 1


def asked(*tags: int) -> list[Tagged]:
    return [(tag, Asked(ScoreRequest((tag, 0), prompt_len=1), 4)) for tag in tags]


def test_a_turn_ends_when_few_enough_are_left() -> None:
    source = Stepping()
    turns = Turns(source)
    assert [tag for tag, _ in turns.turn(asked(30, 10, 20), leave=1)] == [30, 10]
    assert [tag for tag, _ in turns.turn(asked(40), leave=0)] == [20, 40]
    assert source.seen == [(30, 0), (10, 0), (20, 0), (40, 0)]


def test_a_turn_with_room_for_everything_takes_no_step() -> None:
    source = Stepping()
    turns = Turns(source)
    assert turns.turn(asked(1, 2), leave=2) == []
    assert source.seen == []
    assert [tag for tag, _ in turns.turn([], leave=0)] == [1, 2]


def test_what_is_under_way_is_dropped_and_the_next_rollout_begins_afresh() -> None:
    source = Stepping()
    turns = Turns(source)
    turns.turn(asked(1, 2, 3), leave=2)
    turns.finish()
    assert source.closed == 1
    assert [tag for tag, _ in turns.turn(asked(7), leave=0)] == [7]
    turns.finish()
    turns.finish()
    assert source.closed == 2
