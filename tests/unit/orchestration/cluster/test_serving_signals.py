"""Engines of signals under Ray Serve, without a cluster: passes that many share, and errors (whole: tests/slow)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import pytest
from doors import IDENTITY
from ray.exceptions import ActorDiedError, RayError
from signal_builders import CLASSES, STATES, ask, assert_same_signal, respond

from cache import SignalRecord, SignalRequest
from cache.protocols import Failure
from configs import EngineError
from orchestration.cluster.serving_signals import HandleSignals, Passes

ABOUT = [[ask((2, 4 + at, 3), CLASSES), ask((2, 4 + at, 3), STATES[1])] for at in range(5)]


class Model:
    """Answers as it is drawn from, each pass once it is let."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.passes: list[list[SignalRequest]] = []
        self.gate = threading.Event()
        self.fails = 0

    def signals(self, requests: Iterable[SignalRequest]) -> Iterator[tuple[int, SignalRecord | Failure]]:
        self.passes.append(list(requests))
        assert self.gate.wait(30)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("out of memory")
        # The last one first, as a model may finish them.
        for at, request in reversed(list(enumerate(self.passes[-1]))):
            yield at, respond(request, identity=IDENTITY)


def test_what_comes_while_a_pass_is_made_is_read_by_the_next_one() -> None:
    async def play() -> None:
        model = Model()
        passes = Passes(model)
        waiting = [asyncio.create_task(passes.signals(ABOUT[0]))]
        while not model.passes:
            await asyncio.sleep(0.005)
        waiting += [asyncio.create_task(passes.signals(each)) for each in ABOUT[1:]]
        await asyncio.sleep(0)
        # Whoever goes away leaves the others theirs.
        waiting[2].cancel()
        model.gate.set()
        for about, task in zip(ABOUT, waiting, strict=True):
            if not task.cancelled() and task is not waiting[2]:
                for record, request in zip(await task, about, strict=True):
                    assert isinstance(record, SignalRecord)
                    assert_same_signal(record, respond(request, identity=IDENTITY))
        assert [len(each) for each in model.passes] == [2, 8]
        # It begins anew once it had nothing to do.
        assert len(await passes.signals(ABOUT[0])) == 2 and len(model.passes) == 3

    asyncio.run(play())


def test_an_error_in_a_pass_is_that_of_whom_it_was_made_for() -> None:
    async def play() -> None:
        model = Model()
        model.fails = 1
        passes = Passes(model)
        first = asyncio.create_task(passes.signals(ABOUT[0]))
        while not model.passes:
            await asyncio.sleep(0.005)
        second = asyncio.create_task(passes.signals(ABOUT[1]))
        await asyncio.sleep(0)
        model.gate.set()
        with pytest.raises(RuntimeError, match="out of memory"):
            await first
        assert len(await second) == 2

    asyncio.run(play())


@pytest.mark.parametrize("error", [ActorDiedError(), RayError("the replica is gone\nand more")])
def test_an_engine_that_is_gone_is_an_engine_that_died(error: RayError) -> None:
    async def signals(requests: list[SignalRequest]) -> list[Failure]:
        raise error

    handle = SimpleNamespace(signals=SimpleNamespace(remote=signals))
    with pytest.raises(EngineError, match="an engine is gone") as raised:
        asyncio.run(HandleSignals(handle).signals(ABOUT[0]))
    assert "\n" not in str(raised.value)


def test_what_an_engine_says_goes_through() -> None:
    async def signals(requests: list[SignalRequest]) -> list[Failure]:
        assert requests == ABOUT[0]
        return [Failure("no"), Failure("nor this")]

    handle = SimpleNamespace(signals=SimpleNamespace(remote=signals))
    assert asyncio.run(HandleSignals(handle).signals(ABOUT[0])) == [Failure("no"), Failure("nor this")]
