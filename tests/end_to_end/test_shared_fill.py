"""Pipelines that fill one cache at once pay once for the rows they share, and wait for nobody who is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fill_process import K, shared_requests, shared_signals
from local_engines import IDENTITY, VOCAB, LocalEngines, Watched, refusing

from cache import GenerateRequest, ScoreRequest, TeacherCache, generation_key
from cache.answers import Request
from cache.claims import Claims
from cache.disk.local_storage import LocalStorage
from cache.keys import sequence_key
from configs import BudgetReached, EngineError
from orchestration.fill import fill as fill_module
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, FillResult, fill
from orchestration.plan.requests import SequenceSet, plan_fill

UNLIMITED = Budgets(None, None)
DIGEST = IDENTITY.digest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_module, "POLL_S", 0.01)


@dataclass(slots=True)
class Bar:
    """A progress that remembers."""

    said: list[tuple[float, int | None, str]] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        self.said.append((done, tokens, note))
        if "another pipeline" in note:
            self.waiting.set()


class Pipeline:
    """A fill in a thread of its own."""

    def __init__(
        self,
        root: Path,
        requests: Sequence[Request],
        *,
        at_outcome: Callable[[int], None] = lambda _: None,
        budgets: Budgets = UNLIMITED,
        k: int = K,
    ) -> None:
        self.teacher = Watched(at_outcome=at_outcome)
        self.bar = Bar()
        self.result: FillResult | None = None
        self.error: BaseException | None = None
        self._sets = [SequenceSet("teacher", "train", tuple(requests), k)]
        self._root, self._budgets = root, budgets
        # Each pipeline has a run directory of its own.
        self._ledger = root.parent / f"ledger-{id(self)}"
        self._thread = threading.Thread(target=self._run)

    @property
    def asked(self) -> list[Request]:
        return self.teacher.asked

    def start(self) -> Pipeline:
        self._thread.start()
        return self

    def end(self) -> FillResult:
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def wait_until_waiting(self) -> None:
        assert self.bar.waiting.wait(60)

    def _run(self) -> None:
        cache = TeacherCache.open(self._root, IDENTITY)
        try:
            self.result = fill(
                plan_fill(self._sets, cache=cache),
                cache=cache,
                engines=LocalEngines(self.teacher),
                order=FillOrder(False, self._root, 0, 1e6, None, {}, self._ledger),
                budgets=self._budgets,
                vocab=VOCAB,
                progress=self.bar,
            )
        except BaseException as error:  # noqa: BLE001 - handed to the test, which raises it
            self.error = error


def key_of(request: Request) -> bytes:
    if isinstance(request, GenerateRequest):
        return generation_key(DIGEST, request)
    return sequence_key(DIGEST, request.token_ids, request.prompt_len)


def claims_of(root: Path) -> Claims:
    return Claims(LocalStorage(root / DIGEST))


def claimed(root: Path) -> list[str]:
    return sorted(path.name for path in (root / DIGEST / "claims").iterdir())


def missing(root: Path, requests: Sequence[Request], *, k: int = K) -> int:
    lacking = TeacherCache.open(root, IDENTITY).missing(requests, k=k)
    return len(lacking.generate) + len(lacking.score)


def test_rows_that_two_want_are_asked_once(tmp_path: Path) -> None:
    all_rows = shared_requests(3, 15)
    second = Pipeline(tmp_path, all_rows[5:])

    def at_outcome(number: int) -> None:
        if number == 0:
            second.start().wait_until_waiting()

    first = Pipeline(tmp_path, all_rows[:10], at_outcome=at_outcome).start()
    done, waited = first.end(), second.end()
    assert first.asked == list(all_rows[:10])
    assert second.asked == list(all_rows[10:])
    assert (done.rows, waited.rows) == (10, 5)
    assert (done.from_others, waited.from_others) == (0, 5)
    assert (5.0, waited.response_tokens, "waiting for 5 rows that another pipeline is fetching") in second.bar.said
    assert missing(tmp_path, all_rows) == 0
    assert claimed(tmp_path) == []


def test_what_an_ended_pipeline_had_not_fetched_is_taken_over(tmp_path: Path) -> None:
    rows = shared_requests(3, 8)
    second = Pipeline(tmp_path, rows)

    def at_outcome(number: int) -> None:
        if number == 3:
            second.start().wait_until_waiting()
            raise MemoryError

    first = Pipeline(tmp_path, rows, at_outcome=at_outcome).start()
    with pytest.raises(MemoryError):
        first.end()
    assert second.end().from_others == 3
    # The row that was under way is the only one that is asked twice.
    assert second.asked == list(rows[3:])
    assert missing(tmp_path, rows) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupt_lets_the_others_have_the_rows(tmp_path: Path, error: BaseException) -> None:
    def at_outcome(number: int) -> None:
        if number == 2:
            assert claimed(tmp_path) != []
            raise error

    rows = shared_requests(3, 6)
    with pytest.raises(type(error)):
        Pipeline(tmp_path, rows, at_outcome=at_outcome).start().end()
    assert claimed(tmp_path) == []
    rest = Pipeline(tmp_path, rows).start()
    rest.end()
    assert len(rest.asked) == 4


def test_engines_that_die_without_progress_release_the_claim(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no memory"):
        Pipeline(tmp_path, shared_requests(3, 4), at_outcome=refusing("no memory")).start().end()
    assert claimed(tmp_path) == []


def test_a_completion_under_way_is_waited_for_and_then_scored(tmp_path: Path) -> None:
    rows = shared_requests(3, 4)
    fuller = Pipeline(tmp_path, rows, k=6)

    def at_outcome(number: int) -> None:
        if number == 0:
            fuller.start().wait_until_waiting()

    Pipeline(tmp_path, rows, at_outcome=at_outcome, k=2).start().end()
    fuller.end()
    assert all(isinstance(request, ScoreRequest) for request in fuller.asked)
    assert len(fuller.asked) == 4
    assert missing(tmp_path, rows, k=6) == 0


def test_a_score_with_too_few_log_probabilities_is_not_waited_for(tmp_path: Path) -> None:
    gold: tuple[Request, ...] = (ScoreRequest((5, 6, 7, 2), prompt_len=2),)
    with claims_of(tmp_path).claim([key_of(gold[0])], k=2):
        Pipeline(tmp_path, gold, k=4).start().end()
    assert missing(tmp_path, gold) == 0


def test_what_nobody_has_claimed_is_asked_first(tmp_path: Path) -> None:
    rows = shared_requests(3, 6)
    pipeline = Pipeline(tmp_path, rows)
    with claims_of(tmp_path).claim([key_of(request) for request in rows[:4]], k=0):
        pipeline.start().wait_until_waiting()
        assert pipeline.asked == list(rows[4:])
    pipeline.end()
    assert pipeline.asked == [*rows[4:], *rows[:4]]


def test_rows_that_were_committed_before_the_claim_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shared_requests(3, 6)
    take = Claims._take

    def slow_take(claims: Claims, *arguments: object) -> int:
        monkeypatch.setattr(Claims, "_take", take)
        # Between the look at the cache and the claim another pipeline does a part of the work and goes.
        Pipeline(tmp_path, rows[:4]).start().end()
        return take(claims, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Claims, "_take", slow_take)
    pipeline = Pipeline(tmp_path, rows).start()
    assert pipeline.end().from_others == 4
    assert pipeline.asked == list(rows[4:])


def test_a_spent_token_budget_does_not_end_a_wait(tmp_path: Path) -> None:
    rows = shared_requests(3, 6)
    pipeline = Pipeline(tmp_path, rows, budgets=Budgets(2 * 14, None))
    other = claims_of(tmp_path).claim([key_of(request) for request in rows[1:]], k=0)
    with other:
        pipeline.start().wait_until_waiting()
        store(tmp_path, rows[1:])
        result = pipeline.end()
    assert pipeline.asked == [rows[0]]
    assert 0 < result.teacher_tokens <= 2 * 14


def store(root: Path, rows: Sequence[Request]) -> None:
    """Commit rows without a claim."""
    said = [outcome for _, outcome in Watched().generate(rows, k=K)]  # type: ignore[arg-type]
    cache = TeacherCache.open(root, IDENTITY)
    cache.put(list(zip(said, rows, strict=True)), vocab=VOCAB)  # type: ignore[arg-type]


def test_rows_without_a_claim_that_exceed_the_budget_are_still_refused(tmp_path: Path) -> None:
    rows = shared_requests(3, 6)
    pipeline = Pipeline(tmp_path, rows, budgets=Budgets(14, None))
    with claims_of(tmp_path).claim([key_of(request) for request in rows[:3]], k=0):
        pipeline.start()
        with pytest.raises(BudgetReached):
            pipeline.end()


def test_waiting_takes_of_the_time_budget(tmp_path: Path) -> None:
    rows = shared_requests(3, 3)
    with claims_of(tmp_path).claim([key_of(request) for request in rows], k=0):
        pipeline = Pipeline(tmp_path, rows, budgets=Budgets(None, 0.2)).start()
        pipeline.wait_until_waiting()
        with pytest.raises(BudgetReached, match="3 rows are still missing"):
            pipeline.end()


def test_progress_goes_on_over_passes(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, shared_requests(3, 6))
    died: list[int] = []

    def at_outcome(number: int) -> None:
        if number == 4 and not died:
            died.append(number)
            raise EngineError("out of memory")

    pipeline.teacher.at_outcome = at_outcome
    result = pipeline.start().end()
    assert [done for done, _, _ in pipeline.bar.said] == [6.0]
    assert pipeline.bar.said[-1][1] == result.response_tokens


class Process:
    """A pipeline in a process of its own."""

    def __init__(self, kind: str, root: Path, first: int, count: int, *, row_s: float, die_after: int = 0) -> None:
        script = Path(__file__).parents[1] / "support" / "fill_process.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), kind, str(root), *map(str, (first, count, row_s, die_after))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, list[int]]:
        output, _ = self._process.communicate(timeout=200)
        assert self._process.returncode == 0
        report: dict[str, list[int]] = json.loads(output)
        return report

    def killed(self) -> None:
        assert self._process.wait(120) == -signal.SIGKILL


ROWS_EACH = {"sequences": 1, "signals": 2}
"""Rows of what one number stands for: a prompt, or a text of which two signals are asked."""


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lacking(kind: str, root: Path, first: int, count: int) -> int:
    """Rows of these numbers that the cache does not hold."""
    if kind == "signals":
        return len(TeacherCache.open(root, IDENTITY).signals.missing(shared_signals(first, count)))
    return missing(root, shared_requests(first, count))


@pytest.mark.parametrize("kind", ROWS_EACH)
def test_two_processes_pay_once_together(kind: str, tmp_path: Path) -> None:
    processes = [Process(kind, tmp_path, first, 20, row_s=0.03) for first in (3, 13)]
    for process in processes:
        process.wait_for("ready")
    for process in processes:
        process.go()
    reports = [process.end() for process in processes]
    asked = [number for report in reports for number in report["asked"]]
    assert sorted(asked) == list(range(3, 33))
    # Fewer than the ten shared rows are waited for if one comes so late that it finds some in the cache.
    assert sum(report["from_others"] for report in reports) <= 10 * ROWS_EACH[kind]  # type: ignore[misc]
    assert lacking(kind, tmp_path, 3, 30) == 0
    assert list((tmp_path / DIGEST / "staging").iterdir()) == []
    assert claimed(tmp_path) == []


@pytest.mark.parametrize("kind", ROWS_EACH)
def test_what_a_killed_process_left_is_fetched_by_the_other(kind: str, tmp_path: Path) -> None:
    victim = Process(kind, tmp_path, 3, 20, row_s=0.01, die_after=12)
    other = Process(kind, tmp_path, 13, 20, row_s=0.01)
    for process in (victim, other):
        process.wait_for("ready")
    victim.go()
    victim.wait_for("dying")
    # A thread of it commits meanwhile: what it holds is settled when all that came before is there.
    wait_until(lambda: lacking(kind, tmp_path, 3, 12) == 0)
    # Both want the prompts 13 to 22; the one that dies holds them until the other has claimed the rest.
    other.go()
    wait_until(lambda: "00000002.json" in claimed(tmp_path))
    victim.go()
    victim.killed()
    report = other.end()
    assert lacking(kind, tmp_path, 13, 20) == 0
    assert list((tmp_path / DIGEST / "staging").iterdir()) == []
    # The row at which it died was never committed; those before it are not asked again.
    assert report["asked"] == [*range(23, 33), *range(15, 23)]
    assert report["from_others"] == 0
    assert claimed(tmp_path) == []
