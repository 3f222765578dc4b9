"""Requests to stop: who asks, and that the answer stays."""

from __future__ import annotations

import os
import signal
import threading

import torch
from torch import Tensor

from student_train.training.stopping import StopRequest, sigterm_asks
from student_train.worker_group import WorkerGroup


class OfTwo(WorkerGroup):
    """A group whose other process says what `peer` holds."""

    peer = 0.0

    def total(self, values: Tensor) -> Tensor:
        return values + self.peer


def group() -> OfTwo:
    return OfTwo(0, 2, torch.device("cpu"))


def test_once_asked_the_answer_stays_yes() -> None:
    answers = iter([False, True, False])
    stop = StopRequest(lambda: next(answers), group=group())
    assert [stop.asked(), stop.asked(), stop.asked()] == [False, True, True]


def test_another_process_may_be_the_one_that_was_asked() -> None:
    there = group()
    stop = StopRequest(lambda: False, group=there)
    assert not stop.asked()
    OfTwo.peer = 1.0
    try:
        assert stop.asked()
    finally:
        OfTwo.peer = 0.0
    assert stop.asked()


def test_sigterm_asks_as_long_as_the_block_lasts() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with sigterm_asks(lambda: False) as asks:
        assert not asks()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asks()
    assert signal.getsignal(signal.SIGTERM) is former
    with sigterm_asks(lambda: True) as asks:
        assert asks()


def test_another_thread_leaves_the_handlers_alone() -> None:
    def should_stop() -> bool:
        return False

    found: list[bool] = []

    def train() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with sigterm_asks(should_stop) as asks:
            found.append(asks is should_stop and signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [True]
