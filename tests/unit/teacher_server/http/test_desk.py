"""A desk: what the cache has is not asked, what is under way is asked once, what is answered is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import asked

from cache import TeacherCache
from cache.answers import Request
from cache.erasures import FORGOTTEN, Erasures, held_name
from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs import CacheError, EngineError
from teacher_server import FakeTeacher
from teacher_server.http.desk import BusyError
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.wire import Answered
from teacher_server.requests import Asked

VOCAB = 151
IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)
TEACHER = FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=2)


def prompt(at: int, *, new: int = 8) -> GenerateRequest:
    return GenerateRequest((1, 5 + at), (2,), new)


class Slow:
    """Answers when it is let, and remembers what it was asked; dies of the first `deaths` requests."""

    def __init__(self, *, open_gate: bool = True, deaths: int = 0) -> None:
        self.asked: list[Request] = []
        self.gate = asyncio.Event()
        self.deaths = deaths
        if open_gate:
            self.gate.set()

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        self.asked.append(request)
        await self.gate.wait()
        if self.deaths:
            self.deaths -= 1
            raise EngineError("killed")
        [[(_, outcome)]] = TEACHER.work([Asked(request, k)])
        return outcome


def with_desk(
    root: Path,
    play: Callable[[SequenceDesk, Slow], Coroutine[Any, Any, None]],
    *,
    slow: Slow | None = None,
    **terms: Any,
) -> SequenceDesk:
    """Run `play` with a desk over the cache in `root`; what it answered is written then."""
    desk = SequenceDesk(
        TeacherCache.open(root, IDENTITY),
        slow := slow or Slow(),
        DeskTerms(**{"vocab": VOCAB, "most_k": VOCAB, "commit_every_s": 3600.0} | terms),
    )

    async def run() -> None:
        await play(desk, slow)
        await desk.close()

    asyncio.run(run())
    return desk


def record(answer: Answered[TeacherRecord]) -> TeacherRecord:
    assert isinstance(answer.outcome, TeacherRecord), answer.outcome
    return answer.outcome


def test_what_was_answered_once_is_read_by_the_next_door(tmp_path: Path) -> None:
    requests: list[Request] = [prompt(0), ScoreRequest((1, 9, 5, 6), 2), prompt(1)]

    async def first(desk: SequenceDesk, slow: Slow) -> None:
        answers = await desk.answer(asked(requests, k=4))
        assert [each.cached for each in answers] == [False] * 3 and set(slow.asked) == set(requests)
        again = await desk.answer(asked(requests, k=4))
        assert [each.cached for each in again] == [True] * 3 and len(slow.asked) == 3

    async def second(desk: SequenceDesk, slow: Slow) -> None:
        answers = await desk.answer(asked(requests, k=4))
        assert [each.cached for each in answers] == [True] * 3 and not slow.asked
        [(_, exact)] = TEACHER.generate([prompt(0)], k=4)
        assert isinstance(exact, TeacherRecord) and exact.topk_logprobs is not None
        assert record(answers[0]).key == exact.key
        kept = record(answers[0]).topk_logprobs
        assert kept is not None
        np.testing.assert_allclose(kept, exact.topk_logprobs, atol=0.04)
        # Fewer log-probabilities, a shorter answer and the text alone are there as well.
        assert all(each.cached for each in await desk.answer(asked([prompt(0, new=3)], k=2)))
        assert record((await desk.answer(asked([prompt(0)], k=0)))[0]).topk_ids is None

    desk = with_desk(tmp_path, first)
    assert desk.counts.asked == 3 and desk.counts.hits == 3 and desk.counts.committed_rows == 3
    assert with_desk(tmp_path, second).counts.teacher_tokens == 0


def test_equal_requests_that_come_together_are_asked_once(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        waiting = [
            asyncio.create_task(desk.answer(asked([prompt(0), prompt(at % 2), prompt(0)], k=3))) for at in range(8)
        ]
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        slow.gate.set()
        answers = await asyncio.gather(*waiting)
        assert sorted(each.prompt_ids for each in slow.asked) == [(1, 5), (1, 6)]  # type: ignore[union-attr]
        assert len({record(rows[0]).key for rows in answers}) == 1
        assert desk.waiting_tokens == 0

    with_desk(tmp_path, play, slow=Slow(open_gate=False))


def test_a_teacher_is_asked_in_nobody_s_context(tmp_path: Path) -> None:
    """A server ends what it finds in the context of a request whose client goes away."""
    whose, seen = ContextVar("whose", default="nobody's"), list[str]()

    class Looking(Slow):
        async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
            seen.append(whose.get())
            return await super().answer(request, k=k)

    async def play(desk: SequenceDesk, slow: Slow) -> None:
        whose.set("a client's")
        await desk.answer(asked([prompt(0)], k=2))

    with_desk(tmp_path, play, slow=Looking())
    assert seen == ["nobody's"]


def test_a_client_that_goes_away_loses_nothing_for_others(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        gone, waits = (asyncio.create_task(desk.answer(asked([prompt(0)], k=3))) for _ in range(2))
        while not slow.asked:
            await asyncio.sleep(0.01)
        gone.cancel()
        slow.gate.set()
        assert record((await waits)[0]).k == 3 and len(slow.asked) == 1

    with_desk(tmp_path, play, slow=Slow(open_gate=False))


def test_a_stored_text_is_scored_and_never_written_anew(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        text = record((await desk.answer(asked([prompt(0)], k=0)))[0])
        await desk.commit()
        scored = record((await desk.answer(asked([prompt(0)], k=4)))[0])
        assert slow.asked[1] == ScoreRequest(tuple(text.token_ids.tolist()), 2)
        assert scored.k == 4 and scored.finish == text.finish
        await desk.commit()
        assert record((await desk.answer(asked([prompt(0)], k=4)))[0]).finish == text.finish

    with_desk(tmp_path, play)


def test_what_was_written_a_moment_ago_is_neither_scored_nor_written_again(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        written = record((await desk.answer(asked([prompt(0)], k=4)))[0])
        bare = record((await desk.answer(asked([prompt(1)], k=0)))[0])
        same, other = (ScoreRequest(tuple(each.token_ids.tolist()), 2) for each in (written, bare))
        for _ in ("not written yet", "in the cache"):
            [scored] = await desk.answer(asked([same], k=4))
            assert scored.cached and record(scored).token_ids.tolist() == written.token_ids.tolist()
            [text] = await desk.answer(asked([prompt(0)], k=0))
            assert text.cached and record(text).k == 0 and record(text).finish == written.finish
            await desk.commit()
        assert len(slow.asked) == 2
        # What has no log-probabilities, or too few, answers nobody who wants some.
        assert record((await desk.answer(asked([other], k=4)))[0]).k == 4
        assert record((await desk.answer(asked([same], k=8)))[0]).k == 8
        assert slow.asked[2:] == [other, same]

    with_desk(tmp_path, play)


def test_what_is_refused_is_told_and_not_kept(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        bad, good = await desk.answer(asked([GenerateRequest((), (2,), 4), prompt(0)], k=0))
        assert bad.outcome == Failure("the prompt is empty") and record(good).k == 0

    assert with_desk(tmp_path, play).counts.failed == 1


def test_more_than_fits_is_refused_with_the_time_to_wait(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        first = asyncio.create_task(desk.answer(asked([prompt(0), prompt(1)], k=0)))
        while len(slow.asked) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="20 tokens wait for the teacher and 10 more do not fit") as busy:
            await desk.answer(asked([prompt(2)], k=0))
        assert 1.0 <= busy.value.retry_after_s <= 60.0
        # What is under way for others takes no room.
        joined = asyncio.create_task(desk.answer(asked([prompt(1)], k=0)))
        await asyncio.sleep(0.05)
        slow.gate.set()
        await asyncio.gather(first, joined)
        # Larger than all room, and nothing waits: it is let in.
        assert record((await desk.answer(asked([prompt(3, new=100)], k=0)))[0]).k == 0

    desk = with_desk(tmp_path, play, slow=Slow(open_gate=False), most_waiting_tokens=25)
    assert desk.counts.refused == 1


@pytest.mark.parametrize(("deaths", "answered"), [(1, True), (2, True), (3, False)])
def test_an_engine_that_dies_is_asked_for_again_and_a_poisonous_request_is_refused(
    tmp_path: Path, deaths: int, answered: bool
) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        [answer] = await desk.answer(asked([prompt(0)], k=0))
        assert isinstance(answer.outcome, TeacherRecord) == answered
        if isinstance(answer.outcome, Failure):
            assert "3 engines died while they were asked this; the last: killed" in answer.outcome.reason

    with_desk(tmp_path, play, slow=Slow(deaths=deaths))


def test_answers_are_kept_in_memory_until_the_disk_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        await desk.answer(asked([prompt(0)], k=2))

        def full(*_: object, **__: object) -> None:
            raise CacheError("no space left")

        with monkeypatch.context() as patched:
            patched.setattr(TeacherCache, "writer", full)
            await desk.commit()
            assert (await desk.answer(asked([prompt(0)], k=2)))[0].cached and len(slow.asked) == 1
        assert desk.counts.commit_errors == 1 and desk.counts.committed_rows == 0 and desk.writing_fails
        await desk.commit()
        assert not desk.writing_fails

    assert with_desk(tmp_path, play).counts.committed_rows == 1
    assert TeacherCache.open(tmp_path, IDENTITY).lookup([prompt(0)], k=2) != [None]


def test_answers_are_written_by_and_by(tmp_path: Path) -> None:
    async def play(desk: SequenceDesk, slow: Slow) -> None:
        await desk.answer(asked([prompt(0)], k=2))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if desk.counts.committed_rows:
                break
        assert TeacherCache.open(tmp_path, IDENTITY).lookup([prompt(0)], k=2) != [None]

    with_desk(tmp_path, play, commit_every_s=0.02)


def test_what_another_process_commits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_server.http.desk.REFRESH_S", 0.0)

    async def play(desk: SequenceDesk, slow: Slow) -> None:
        await desk.answer(asked([prompt(1)], k=2))
        [(_, written)] = TEACHER.generate([prompt(0)], k=2)
        assert isinstance(written, TeacherRecord)
        TeacherCache.open(tmp_path, IDENTITY).put([(written, prompt(0))], vocab=VOCAB)
        assert (await desk.answer(asked([prompt(0)], k=2)))[0].cached and slow.asked == [prompt(1)]

    with_desk(tmp_path, play)


def test_a_desk_that_closes_while_it_writes_writes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[object] = []
    real = TeacherCache.writer

    def slow(self: TeacherCache, **terms: Any) -> Any:
        writers.append(self)
        time.sleep(0.3)
        return real(self, **terms)

    monkeypatch.setattr(TeacherCache, "writer", slow)

    async def play(desk: SequenceDesk, slow: Slow) -> None:
        await desk.answer(asked([prompt(0)], k=2))
        while not writers:
            await asyncio.sleep(0.01)

    assert with_desk(tmp_path, play, commit_every_s=0.01).counts.committed_rows == 1
    assert len(writers) == 1


def test_what_was_forgotten_is_neither_asked_nor_kept(tmp_path: Path) -> None:
    """Also what was answered and not written yet when it was forgotten."""
    Erasures().add([held_name(prompt(0).prompt_ids)], root=tmp_path)

    async def play(desk: SequenceDesk, slow: Slow) -> None:
        one, two = await desk.answer(asked([prompt(0), prompt(1)], k=4))
        assert isinstance(one.outcome, Failure) and one.outcome.reason == FORGOTTEN
        assert record(two) is not None and slow.asked == [prompt(1)]
        assert (desk.counts.asked, desk.counts.failed) == (1, 1)
        Erasures().add([held_name(prompt(1).prompt_ids)], root=tmp_path)

    desk = with_desk(tmp_path, play)
    desk.cache.refresh()
    assert desk.cache.stats().records == 0
