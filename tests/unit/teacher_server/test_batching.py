"""Batches under way: each of one kind, no more at once than there is room, and nothing drawn before its time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence

import pytest

from cache.protocols import Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.batching import Batches
from teacher_server.requests import Asked


def written(*prompt: int, k: int = 0) -> Asked:
    return Asked(GenerateRequest(prompt, (), 4), k)


def scored(*token_ids: int, k: int = 1) -> Asked:
    return Asked(ScoreRequest(token_ids, 1), k)


def named(batch: Sequence[Asked]) -> list[Failure]:
    """An 'answer' that says which request it belongs to."""
    return [Failure(repr(each)) for each in batch]


def all_of(steps: Iterator[list[Outcome]]) -> list[Outcome]:
    return list(itertools.chain.from_iterable(steps))


def nothing(_: Asked) -> None:
    return None


def test_every_request_gets_its_own_answer() -> None:
    asked = [written(1), scored(1, 2), written(2, k=3), written(3), scored(4, 5), scored(6, 7, k=2)]
    kinds: list[set[tuple[type, int]]] = []

    def ask(batch: Sequence[Asked]) -> list[Failure]:
        kinds.append({(type(each.request), each.k) for each in batch})
        return named(batch)

    found = dict(all_of(Batches(ask, nothing, rows=4, at_once=2).work(asked)))
    assert found == {place: Failure(repr(each)) for place, each in enumerate(asked)}
    assert all(len(kind) == 1 for kind in kinds)


def test_what_is_not_worth_asking_fails_alone() -> None:
    asked = [written(1), written(9), written(2)]
    batches = Batches(named, lambda each: "nine" if each == written(9) else None, rows=8, at_once=1)
    found = dict(all_of(batches.work(asked)))
    assert found == {0: Failure(repr(asked[0])), 1: Failure("nine"), 2: Failure(repr(asked[2]))}


def test_no_more_are_under_way_than_there_is_room() -> None:
    lock, counts = threading.Lock(), {"now": 0, "most": 0}
    both = threading.Barrier(2, timeout=30)

    def ask(batch: Sequence[Asked]) -> list[Failure]:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        both.wait()  # fails unless two are under way at once
        with lock:
            counts["now"] -= 1
        return named(batch)

    assert len(all_of(Batches(ask, nothing, rows=1, at_once=2).work([written(n) for n in range(8)]))) == 8
    assert counts["most"] == 2


def test_requests_are_drawn_as_there_is_room() -> None:
    drawn: list[int] = []

    def source() -> Iterator[Asked | None]:
        for number in range(40):
            drawn.append(number)
            yield written(number)

    steps = Batches(named, nothing, rows=2, at_once=2).work(source())
    next(steps)
    assert len(drawn) <= 6
    steps.close()


def test_a_pause_sends_what_is_there() -> None:
    sizes: list[int] = []

    def ask(batch: Sequence[Asked]) -> list[Failure]:
        sizes.append(len(batch))
        return named(batch)

    assert len(all_of(Batches(ask, nothing, rows=8, at_once=1).work([written(1), None, written(2), written(3)]))) == 3
    assert sizes == [1, 2]


def test_an_error_ends_it() -> None:
    asked: list[int] = []

    def ask(batch: Sequence[Asked]) -> list[Failure]:
        asked.append(len(batch))
        raise ValueError("no such server")

    with pytest.raises(ValueError, match="no such server"):
        all_of(Batches(ask, nothing, rows=1, at_once=1).work([written(1), written(2)]))
    assert asked == [1]
