"""How an engine's answers are put together and wait for a commit; of sequences more is in test_engine_loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_engines import IDENTITY, VOCAB, fake_teacher
from local_signals import STATE
from signal_builders import CLASSES, TAGS, ask, respond

from cache import GenerateRequest, SignalRecord, SignalRequest, TeacherCache
from cache.disk.spending import Spent
from cache.protocols import Failure
from orchestration.fill.answers import SequenceAnswers, SignalAnswers
from orchestration.fill.engine_loop import Questions


@pytest.fixture
def cache(tmp_path: Path) -> TeacherCache:
    return TeacherCache.open(tmp_path / "cache", IDENTITY)


def said(request: SignalRequest, *, width: int = 6) -> SignalRecord:
    return respond(request, width=width, identity=IDENTITY)


class OutOfOrder:
    """Draws everything, and answers one request a pass from the last to the first."""

    def passes(self, requests: Iterable[SignalRequest]) -> Iterator[list[tuple[int, SignalRecord | Failure]]]:
        for number, request in reversed(list(enumerate(requests))):
            yield [(number, said(request))]
        yield []


def test_a_text_is_answered_when_all_its_questions_are_in_their_order(cache: TeacherCache) -> None:
    items: list[Questions] = [
        (ask([1, 2], CLASSES), ask([1, 2], STATE), ask([1, 2], TAGS)),
        (ask([3], CLASSES), ask([3], TAGS)),
    ]
    steps = list(SignalAnswers(OutOfOrder(), cache.signals.writer).steps(iter(items)))
    assert [[place for place, _ in step] for step in steps] == [[], [1], [], [], [0], []]
    replies = dict(reply for step in steps for reply in step)
    for place, questions in enumerate(items):
        found = [record for record in replies[place] if isinstance(record, SignalRecord)]
        assert [(tuple(r.token_ids.tolist()), r.signal) for r in found] == [
            (request.token_ids, request.signal) for request in questions
        ]


def test_the_tokens_of_a_text_are_counted_once_and_not_at_all_if_nothing_was_read(cache: TeacherCache) -> None:
    answers = SignalAnswers(OutOfOrder(), cache.signals.writer)
    item = (ask([1, 2, 3], CLASSES), ask([1, 2, 3], TAGS), ask([1, 2, 3], STATE))
    took = answers.take(item, [said(item[0]), Failure("not finite"), said(item[2], width=4)])
    assert (took.rows, took.forward_tokens, took.settled_tokens) == (2, 3, 3)
    assert took.failures == [(1, "not finite")]
    nothing = answers.take(item, [Failure("too long")] * 3)
    assert (nothing.rows, nothing.forward_tokens, nothing.settled_tokens) == (0, 0, 3)
    assert answers.pending_rows == 2


def test_a_value_that_the_encoding_cannot_hold_costs_its_request(cache: TeacherCache) -> None:
    answers = SignalAnswers(OutOfOrder(), lambda: cache.signals.writer(encoding="signal-f16"))
    item = (ask([1], CLASSES), ask([1], STATE))
    took = answers.take(item, [respond(item[0], identity=IDENTITY, scale=1e6), said(item[1], width=4)])
    assert took.rows == 1 and took.forward_tokens == 1
    ((offset, reason),) = took.failures
    assert offset == 0 and "refused" in reason


def test_what_was_spent_is_shared_by_the_rows_of_the_segments(cache: TeacherCache) -> None:
    answers = SignalAnswers(OutOfOrder(), cache.signals.writer)
    for token in range(3):
        item = (ask([token], CLASSES), ask([token], STATE))
        answers.take(
            item[: 2 if token else 1], [said(one, width=6 - 2 * at) for at, one in enumerate(item)][: 2 if token else 1]
        )
    assert answers.due(0.0) and not answers.due(1e6)
    reports = list(answers.commit(Spent(seconds=10.0, gpu_seconds=20.0, joules=5.0)))
    assert [report.rows for report in reports] == [3, 2]
    assert answers.pending_rows == 0
    spent = [Spent.of(manifest.provenance) for manifest in cache._library.manifests]
    assert sorted(each.seconds for each in spent) == pytest.approx([4.0, 6.0])
    assert sum(each.joules for each in spent) == pytest.approx(5.0)


def test_a_sequence_is_kept_and_a_failure_is_not(cache: TeacherCache) -> None:
    with cache.writer(vocab=VOCAB) as writer:
        answers = SequenceAnswers(fake_teacher(), writer, k=2)
        asked = GenerateRequest((3, 4), stop_ids=(2,), max_new_tokens=5)
        ((_, record),) = [outcome for step in answers.steps(iter([asked])) for outcome in step]
        took: Any = answers.take(asked, record)
        assert took.settled_tokens == 7 and took.rows == answers.pending_rows == 1
        assert took.forward_tokens == 2 + took.response_tokens
        refused = answers.take(asked, Failure("no"))
        assert (refused.forward_tokens, refused.failures) == (0, [(0, "no")])
        (report,) = answers.commit(Spent())
        assert report.rows == 1 and list(answers.commit(Spent())) == []
