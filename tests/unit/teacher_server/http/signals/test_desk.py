"""A desk of signals: what is asked about one text is one pass, and every signal is kept and found by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import IDENTITY
from signal_builders import ask, assert_same_signal, respond
from signal_doors import CLASSES, FACTS, STATE, Seeing, signal_desk

from cache import SignalRecord, SignalRequest
from cache.protocols import Failure
from teacher_server.http.desk import BusyError
from teacher_server.http.signals.desk import Reply, SignalDesk

BOTH = [ask((2, 4, 3), CLASSES), ask((2, 4, 3), STATE), ask((2, 5, 5, 3), CLASSES)]


def with_desk(
    root: Path,
    play: Callable[[SignalDesk, Seeing], Coroutine[Any, Any, None]],
    *,
    seeing: Seeing | None = None,
    **terms: Any,
) -> SignalDesk:
    seeing = seeing or Seeing()
    desk = signal_desk(root, seeing, **terms)

    async def run() -> None:
        async with asyncio.timeout(30):
            await play(desk, seeing)
            await desk.close()

    asyncio.run(run())
    return desk


def expected(request: SignalRequest) -> SignalRecord:
    return respond(request, width=FACTS.width(request.signal), identity=IDENTITY)


def test_a_text_is_read_once_for_all_its_signals_and_the_next_door_reads_what_was_kept(tmp_path: Path) -> None:
    async def first(desk: SignalDesk, seeing: Seeing) -> None:
        answers = await desk.answer(BOTH)
        assert seeing.asked == [tuple(BOTH[:2]), tuple(BOTH[2:])]
        for answer, request in zip(answers, BOTH, strict=True):
            assert isinstance(answer.outcome, SignalRecord) and not answer.cached
            assert_same_signal(answer.outcome, expected(request))

    async def second(desk: SignalDesk, seeing: Seeing) -> None:
        more = ask((2, 5, 5, 3), STATE)
        *held, new = await desk.answer([*reversed(BOTH), more])
        # Of a text whose classes are known its state alone is asked.
        assert seeing.asked == [(more,)] and not new.cached
        for answer, request in zip(held, reversed(BOTH), strict=True):
            assert isinstance(answer.outcome, SignalRecord) and answer.cached
            assert_same_signal(answer.outcome, expected(request))

    counts = with_desk(tmp_path, first).counts
    # The tokens of a text are read once, whatever is asked about it.
    assert (counts.asked, counts.teacher_tokens, counts.committed_rows) == (3, 3 + 4, 3)
    counts = with_desk(tmp_path, second).counts
    assert (counts.hits, counts.asked, counts.teacher_tokens) == (3, 1, 4)


def test_equal_questions_that_come_together_are_asked_once(tmp_path: Path) -> None:
    async def play(desk: SignalDesk, seeing: Seeing) -> None:
        waiting = [asyncio.create_task(desk.answer(BOTH[:1]))]
        await seeing.until_asked()
        waiting += [asyncio.create_task(desk.answer(BOTH[:2])) for _ in range(2)]
        await seeing.until_asked(2)
        assert desk.waiting_tokens == 6
        seeing.gate.set()
        await asyncio.gather(*waiting)
        # The classes went to the first; of the second the state alone is new.
        assert seeing.asked == [(BOTH[0],), (BOTH[1],)] and desk.waiting_tokens == 0

    counts = with_desk(tmp_path, play, seeing=Seeing(open_gate=False)).counts
    assert (counts.asked, counts.shared) == (2, 3)


def test_what_would_wait_for_too_long_is_refused(tmp_path: Path) -> None:
    async def play(desk: SignalDesk, seeing: Seeing) -> None:
        first = asyncio.create_task(desk.answer(BOTH[:2]))
        await seeing.until_asked()
        with pytest.raises(BusyError, match="3 tokens wait for the teacher and 4 more do not fit"):
            await desk.answer(BOTH)
        seeing.gate.set()
        await first

    assert with_desk(tmp_path, play, seeing=Seeing(open_gate=False), most_waiting_tokens=6).counts.refused == 1


def test_another_engine_answers_where_one_died_and_what_several_die_of_is_refused(tmp_path: Path) -> None:
    async def play(desk: SignalDesk, seeing: Seeing) -> None:
        seeing.deaths = 2
        [answer] = await desk.answer(BOTH[2:])
        assert isinstance(answer.outcome, SignalRecord)
        seeing.deaths = 3
        refused = [each.outcome for each in await desk.answer(BOTH[:2])]
        assert refused == [Failure("3 engines died while they were asked this; the last: killed")] * 2

    assert with_desk(tmp_path, play).counts.failed == 2


def test_what_breaks_a_rule_is_given_and_not_kept(tmp_path: Path) -> None:
    class Broken(Seeing):
        async def signals(self, requests: Any) -> Reply:
            found = await super().signals(requests)
            return [replace(each, values=np.full_like(each.values, np.nan)) for each in found]  # type: ignore[type-var]

    async def play(desk: SignalDesk, seeing: Seeing) -> None:
        [answer] = await desk.answer(BOTH[:1])
        assert isinstance(answer.outcome, SignalRecord)
        await desk.commit()
        assert not (await desk.answer(BOTH[:1]))[0].cached

    with_desk(tmp_path, play, seeing=Broken())
