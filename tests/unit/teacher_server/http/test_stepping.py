"""An engine that answers many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterable

import pytest

from cache.identity import TeacherIdentity
from cache.protocols import Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs import EngineError
from teacher_server import FakeTeacher
from teacher_server.http.stepping import SteppedEngine
from teacher_server.requests import Asked

IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)
TEACHER = FakeTeacher(IDENTITY, vocab=151, eos_id=2)


def prompt(at: int) -> GenerateRequest:
    return GenerateRequest((1, 5 + at), (2,), 8)


class Batches:
    """Takes in all that there is before each step, as vLLM does, and remembers how many it had at once."""

    def __init__(self, *, dies_after: int | None = None, of: Exception | None = None) -> None:
        self.at_once: list[int] = []
        self.idle_steps = 0
        self.may_step = threading.Event()
        self.may_step.set()
        self._dies_after, self._of = dies_after, of or EngineError("it died")

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        source, place = iter(asked), 0
        flying: list[tuple[int, Asked]] = []
        while True:
            self.idle_steps += not flying
            while (each := next(source, "ended")) is not None and not isinstance(each, str):
                flying.append((place, each))
                place += 1
            if isinstance(each, str) and not flying:
                return
            self.may_step.wait()
            self.at_once.append(len(flying))
            if self._dies_after is not None and place >= self._dies_after:
                raise self._of
            (at, first), flying = flying[0], flying[1:]
            [[(_, outcome)]] = TEACHER.work([first])
            yield [(at, outcome)]


def test_many_who_ask_are_answered_each_with_their_own() -> None:
    stepped = SteppedEngine(TEACHER)

    async def ask() -> list[TeacherRecord | Failure]:
        written = [stepped.answer(prompt(at), k=at % 3) for at in range(20)]
        return await asyncio.gather(*written, stepped.answer(ScoreRequest((1, 9, 5), 1), k=4))

    *written, scored = asyncio.run(ask())
    stepped.close()
    for at, record in enumerate(written):
        assert isinstance(record, TeacherRecord) and record.k == at % 3
        assert tuple(record.token_ids[:2]) == (1, 5 + at)
    assert isinstance(scored, TeacherRecord) and scored.token_ids.tolist() == [1, 9, 5]


def test_what_comes_while_the_engine_works_joins_the_next_step() -> None:
    engine = Batches()
    engine.may_step.clear()
    stepped = SteppedEngine(engine)
    replies = [stepped.submit(prompt(at), k=0) for at in range(6)]
    engine.may_step.set()
    assert all(isinstance(reply.result(10), TeacherRecord) for reply in replies)
    stepped.close()
    assert max(engine.at_once) >= 5


def test_an_engine_with_nothing_to_do_waits_without_steps() -> None:
    engine = Batches()
    stepped = SteppedEngine(engine)
    for at in range(3):
        assert isinstance(stepped.submit(prompt(at), k=0).result(10), TeacherRecord)
    stepped.close()
    assert engine.idle_steps <= 4 and engine.at_once == [1, 1, 1]


def test_what_is_refused_costs_that_request_alone() -> None:
    stepped = SteppedEngine(TEACHER)
    refused, written = stepped.submit(GenerateRequest((), (2,), 8), k=0), stepped.submit(prompt(0), k=0)
    assert refused.result(10) == Failure("the prompt is empty")
    assert isinstance(written.result(10), TeacherRecord)
    stepped.close()


@pytest.mark.parametrize("error", [EngineError("out of memory"), RuntimeError("a defect")])
def test_whoever_waits_for_an_engine_that_dies_is_told(error: Exception) -> None:
    engine = Batches(dies_after=3, of=error)
    engine.may_step.clear()
    stepped = SteppedEngine(engine)
    replies = [stepped.submit(prompt(at), k=0) for at in range(5)]
    engine.may_step.set()
    for reply in replies:
        with pytest.raises(EngineError, match=str(error)):
            reply.result(10)
    assert stepped.died is not None
    with pytest.raises(EngineError, match=str(error)):
        stepped.submit(prompt(9), k=0).result(10)
    stepped.close()


def test_a_request_that_is_given_up_before_its_turn_costs_nothing() -> None:
    engine = Batches()
    engine.may_step.clear()
    stepped = SteppedEngine(engine)
    first = stepped.submit(prompt(0), k=0)
    while not first.running():
        pass
    given_up = [stepped.submit(prompt(1), k=0) for _ in range(3)]
    # What the engine has drawn already it answers all the same.
    cancelled = [reply.cancel() for reply in given_up]
    engine.may_step.set()
    assert isinstance(first.result(10), TeacherRecord)
    stepped.close()
    assert len(engine.at_once) == 4 - sum(cancelled)


def test_a_closed_engine_answers_what_it_took_and_nothing_more() -> None:
    stepped = SteppedEngine(TEACHER)
    replies = [stepped.submit(prompt(at), k=2) for at in range(4)]
    stepped.close()
    assert all(isinstance(reply.result(0), TeacherRecord) for reply in replies)
    with pytest.raises(EngineError, match="closed"):
        stepped.submit(prompt(5), k=0).result(10)
