"""Contenders that live in processes of their own and take turns at steps: all meet the same load of the machine.

A contender is a function that is given a `Turn`: it prepares itself, then takes steps for as long as it is asked to.
On a CPU a step takes what it takes of one processor, which other programs change little; on a GPU it takes time.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

Contender = Callable[["Turn"], None]


class Ended(Exception):
    """Nobody asks for another step."""


class ContenderFailed(Exception):
    """A contender could not take its steps; the reason in one line."""


class Turn:
    """The contender's side: a step begins when it is asked for, and its end is told."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clock = time.perf_counter if on_gpu() else time.process_time
        self._started = 0.0

    def begin(self) -> None:
        """Wait until a step is asked for.

        Raises:
            Ended: there is none any more.
        """
        if not self._connection.recv():
            raise Ended
        self._started = self._clock()

    def end(self) -> None:
        """The step is done, the optimiser's part included."""
        if on_gpu():
            torch.cuda.synchronize()
        self._connection.send(self._clock() - self._started)


@contextmanager
def stepping(contender: Contender) -> Iterator[Callable[[], float]]:
    """A function that has the contender take a step, and returns the seconds of it.

    The function raises `ContenderFailed` with the reason of a contender that fails.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(contender, there))
    with _one_thread_each():
        process.start()
    there.close()

    def step() -> float:
        try:
            here.send(True)  # noqa: FBT003
            answer = here.recv()
        except (EOFError, BrokenPipeError):
            process.join()
            raise ContenderFailed(f"its process ended with code {process.exitcode}") from None
        if isinstance(answer, str):
            raise ContenderFailed(answer)
        return float(answer)

    try:
        yield step
    finally:
        try:
            here.send(False)  # noqa: FBT003
            process.join(60)
        except BrokenPipeError:
            process.join()
        if process.is_alive():
            process.kill()
            process.join()
        here.close()


def best_of_turns(steps: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, float]:
    """The shortest step of each in so many rounds, after one that does not count."""
    times = [{name: step() for name, step in steps.items()} for _ in range(rounds + 1)]
    return {name: min(each[name] for each in times[1:]) for name in steps}


def on_gpu() -> bool:
    """Whether steps are taken on a GPU."""
    return torch.cuda.is_available()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started here compute on one thread on a CPU: several that wait for one another spin."""
    before = os.environ.get("OMP_NUM_THREADS")
    if not on_gpu():
        os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _work(contender: Contender, connection: Connection) -> None:
    try:
        contender(Turn(connection))
    except Ended:
        return
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told; the traceback goes to the log)
        traceback.print_exc()
        # What was asked for meanwhile is answered by the reason.
        connection.send(f"{type(error).__name__}: {error}".splitlines()[0])
