"""Classes by a language model's scores of labels, at a desk: what is asked, refused, given and written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import IDENTITY, TEACHER, VOCAB, Gated

from cache import TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import TeacherRecord
from cache.signals import Signal, SignalRecord, validate_signal
from teacher_server.http.desk import BusyError
from teacher_server.http.sequence_desk import Asking, DeskTerms, SequenceDesk
from teacher_server.http.signals.labels import LabelDesk, LabelledText, LabelTexts

CLASSES = Signal("class_logits")
WHO = "7" * 64
LABELS = ((20,), (21, 22))
FREE = (LabelledText((1, 30), 2, label_ids=LABELS),)


class Reader:
    """Token ids are characters; scores of labels less those behind nothing."""

    def __init__(self, free: tuple[LabelledText, ...] = ()) -> None:
        self.content_free = free

    def question(self, text: str, pair: str | None) -> LabelledText:
        ids = (1, *(20 + ord(each) % 100 for each in text))
        return LabelledText(ids, len(ids), label_ids=LABELS)

    def logprobs(self, answers: Sequence[TeacherRecord], *, content_free: Sequence[Sequence[TeacherRecord]]) -> Any:
        return sums(answers) - np.sum([sums(each) for each in content_free], axis=0, dtype=np.float32)


def sums(records: Sequence[TeacherRecord]) -> Any:
    return np.array([record.target_logprobs.sum() for record in records], np.float32)


class Failing(Gated):
    """Fails at questions that begin so."""

    def __init__(self, *beginning: int) -> None:
        super().__init__(open_gate=True)
        self.beginning = beginning

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        ids = request.token_ids if hasattr(request, "token_ids") else ()
        return Failure("no") if ids[: len(self.beginning)] == self.beginning else await super().answer(request, k=k)


def with_desk(
    root: Path,
    play: Callable[[LabelDesk], Coroutine[Any, Any, None]],
    *,
    asking: Asking,
    free: tuple[LabelledText, ...] = (),
    **terms: Any,
) -> LabelDesk:
    cache = TeacherCache.open(root, IDENTITY)
    settings = DeskTerms(**{"vocab": VOCAB, "most_k": 1, "commit_every_s": 3600.0} | terms)
    desk = LabelDesk(SequenceDesk(cache, asking, settings), Reader(free), identity=WHO)

    async def run() -> None:
        async with asyncio.timeout(30):
            await play(desk)
            await desk.close()

    asyncio.run(run())
    return desk


def asks(text: str) -> Any:
    return LabelTexts(Reader()).text(text).asks(CLASSES)


def expected(text: str, *, free: bool = False) -> Any:
    def of(question: Any) -> Any:
        return sums([record for _, record in TEACHER.score(question.scores, k=1)])

    return of(asks(text)) - (of(FREE[0].asks(CLASSES)) if free else 0.0)


@pytest.mark.parametrize("free", [(), FREE])
def test_each_label_is_a_sequence_and_the_next_door_finds_all_of_them(
    tmp_path: Path, free: tuple[LabelledText, ...]
) -> None:
    first, second = Gated(open_gate=True), Gated(open_gate=True)

    async def play(desk: LabelDesk) -> None:
        for answer, text in zip(await desk.answer([asks("sun"), asks("rain")]), ("sun", "rain"), strict=True):
            assert isinstance(answer.outcome, SignalRecord)
            validate_signal(answer.outcome, identity_digest=WHO)
            np.testing.assert_allclose(answer.outcome.values, [expected(text, free=bool(free))], atol=1e-5)

    with_desk(tmp_path, play, asking=first, free=free)
    assert len(first.asked) == 4 + 2 * len(free)
    desk = with_desk(tmp_path, play, asking=second, free=free)
    assert second.asked == [] and desk.counts.hits == 2


def test_a_label_that_is_not_answered_leaves_no_classes(tmp_path: Path) -> None:
    async def play(desk: LabelDesk) -> None:
        bad, good = await desk.answer([asks("sun"), asks("rain")])
        assert bad.outcome == Failure("no") and isinstance(good.outcome, SignalRecord)
        assert desk.counts.failed == 1

    with_desk(tmp_path, play, asking=Failing(*asks("sun").token_ids))


def test_without_answers_about_nothing_nothing_is_calibrated(tmp_path: Path) -> None:
    async def play(desk: LabelDesk) -> None:
        (answer,) = await desk.answer([asks("sun")])
        assert isinstance(answer.outcome, Failure) and "without content" in answer.outcome.reason

    with_desk(tmp_path, play, asking=Failing(1, 30), free=FREE)


def test_what_would_wait_too_long_is_refused_by_the_tokens_of_all_labels(tmp_path: Path) -> None:
    gated = Gated()

    async def play(desk: LabelDesk) -> None:
        assert desk.cost([asks("sun")]) == 5 + 6 == desk.cost([asks("sun"), asks("sun")])
        waiting = asyncio.create_task(desk.answer([asks("sun")]))
        await gated.until_asked(2)
        with pytest.raises(BusyError):
            await desk.answer([asks("rain")])
        gated.gate.set()
        await waiting

    with_desk(tmp_path, play, asking=gated, most_waiting_tokens=20)


def test_what_the_disk_refuses_is_told(tmp_path: Path) -> None:
    async def play(desk: LabelDesk) -> None:
        await desk.answer([asks("sun")])
        assert not desk.writing_fails
        await desk.commit()
        assert desk.counts.committed_rows == 1 and not desk.writing_fails

    with_desk(tmp_path, play, asking=Gated(open_gate=True))
