"""One engine's share of a fill: what is committed when, and what becomes of it when it is stopped."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest
from fill_builders import Filling, ask, prompts, teacher_set
from local_engines import IDENTITY, LocalEngines, Watched, lease_queue, run_engine_loop

from cache import ScoreRequest, SegmentWriter, TeacherCache
from cache.answers import Request
from cache.disk.spending import Spent
from configs import CacheError, EngineError
from orchestration.fill import engine_loop
from orchestration.fill.engine_loop import FillProgress, longest


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path / "cache")


def test_the_longest_answer_of_a_request_is_counted_with_its_prompt() -> None:
    assert longest(ask(3, limit=12, prompt_tokens=5)) == 17
    assert longest(ScoreRequest((1, 2, 3, 4), prompt_len=1)) == 4


def test_reports_add_up() -> None:
    total = FillProgress(1, 2, 3, 4, 5, 6, [(0, "a")])
    total.add(FillProgress(10, 20, 30, 40, 50, 60, [(1, "b")]))
    assert total == FillProgress(11, 22, 33, 44, 55, 66, [(0, "a"), (1, "b")])


def test_rows_are_committed_while_the_engine_still_works(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "REPORT_EVERY_S", 0.01)
    committed = threading.Event()
    commit = SegmentWriter.commit

    def watched_commit(writer: SegmentWriter, spent: Spent | None = None) -> object:
        report = commit(writer, spent)
        if report is not None:
            committed.set()
        return report

    monkeypatch.setattr(SegmentWriter, "commit", watched_commit)
    seen: list[int] = []

    def at_outcome(count: int) -> None:
        if count == 5:
            # Nothing more is finished until a commit was made; a reader of its own then finds the rows.
            assert committed.wait(60)
            seen.append(len(filling.records(teacher_set(prompts(5)))))

    filling.fill(teacher_set(prompts(8)), engines=LocalEngines(Watched(at_outcome=at_outcome)), commit_every_s=0.0)
    assert seen[0] >= 1


class Stopping:
    """A queue of endless work that notes what is reported and stops whoever reports once it is told to."""

    def __init__(self) -> None:
        self.told: list[FillProgress] = []
        self._stopped = False
        self._stops = threading.Event()
        self._obeyed = threading.Event()
        self._numbers = itertools.count(3)

    def lease(self) -> list[tuple[int, Request]]:
        return [(number, ask(3 + number % 60)) for number in itertools.islice(self._numbers, 4)]

    def report(self, delta: FillProgress) -> bool:
        # Whoever reports a second time after the stop has heard of it.
        if self._stopped:
            self._obeyed.set()
        self._stopped = self._stops.is_set()
        self.told.append(delta)
        return self._stopped

    def holds(self) -> bool:
        return True

    def joules(self) -> float:
        return 7.0

    def stop(self) -> None:
        """Return when the engine has heard of it."""
        self._stops.set()
        assert self._obeyed.wait(60)


def test_an_engine_told_to_stop_keeps_every_answer_of_its_last_step(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_loop, "REPORT_EVERY_S", 0.01)
    queue = Stopping()

    def at_outcome(count: int) -> None:
        if count == 7:
            # The last answer of the second step: the stop comes while the engine works on it.
            queue.stop()

    run_engine_loop(queue, filling.order(), lambda _: Watched(at_outcome=at_outcome, at_once=4))
    assert filling.cache.refresh() is None
    assert filling.cache.stats().records == 8
    assert sum(each.committed_rows for each in queue.told) == 8


def test_what_is_finished_is_kept_while_a_stopped_engine_still_writes(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may take longer than the process is given to end."""
    monkeypatch.setattr(engine_loop, "REPORT_EVERY_S", 0.01)
    queue = Stopping()
    kept: list[int] = []

    def at_outcome(count: int) -> None:
        if count == 3:
            queue.stop()
            deadline = time.monotonic() + 60
            while not kept and time.monotonic() < deadline:
                records = TeacherCache.open(filling.root, IDENTITY).stats().records
                kept.extend([records] if records else [])

    run_engine_loop(queue, filling.order(), lambda _: Watched(at_outcome=at_outcome))
    assert kept == [3]


def test_a_full_disk_stops_the_engine_and_says_so(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_loop, "REPORT_EVERY_S", 0.01)
    tried = threading.Event()

    def refuse(writer: SegmentWriter, spent: Spent | None = None) -> None:
        tried.set()
        raise CacheError("no space left on the device: free some and run again")

    monkeypatch.setattr(SegmentWriter, "commit", refuse)

    def at_outcome(count: int) -> None:
        if count == 2:
            assert tried.wait(60)
            # The reporting thread sets the stop right after the failed commit.
            while any("_report_until_finished" in thread.name for thread in threading.enumerate()):
                time.sleep(0.01)

    engines = LocalEngines(Watched(at_outcome=at_outcome))
    with pytest.raises(CacheError, match="no space left"):
        filling.fill(teacher_set(prompts(20)), engines=engines, commit_every_s=0.0)
    assert len(engines.teacher.asked) <= 4


class Barring:
    """A real queue that gives its engine up once it is told to."""

    def __init__(self, count: int) -> None:
        self._queue = lease_queue(list(enumerate(prompts(count))), token_budget=None)
        self.lease, self.report, self.joules = self._queue.lease, self._queue.report, self._queue.joules
        self.barred = False

    def holds(self) -> bool:
        return not self.barred


def test_what_an_engine_says_after_it_was_given_up_is_dropped(filling: Filling) -> None:
    queue = Barring(20)

    def at_outcome(count: int) -> None:
        # As one that was stopped in between.
        queue.barred = queue.barred or count == 3

    with pytest.raises(EngineError, match="silent for too long"):
        run_engine_loop(queue, filling.order(), lambda _: Watched(at_outcome=at_outcome))
    filling.cache.refresh()
    assert filling.cache.stats().records == 0 and filling.cache.verify() == []
