"""Work beside the training: its error, its end."""

from __future__ import annotations

import threading

from student_train.training.commit import Commit, StopWaiting


def test_it_runs_beside_whoever_began_it() -> None:
    go_on = threading.Event()
    commit = Commit(lambda _: go_on.wait() and None)
    assert commit.running
    commit.wait(0.01)
    assert commit.running
    go_on.set()
    commit.wait()
    assert not commit.running and commit.error is None


def test_an_error_is_kept() -> None:
    error = OSError(28, "No space left on device")

    def fail(_: StopWaiting) -> None:
        raise error

    commit = Commit(fail)
    commit.wait()
    assert commit.error is error


def test_who_abandons_it_does_not_wait_for_others() -> None:
    seen: list[bool] = []
    commit = Commit(lambda given_up: seen.append(given_up.wait()))
    commit.abandon()
    assert seen == [True] and not commit.running
