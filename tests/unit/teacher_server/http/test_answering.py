"""From requests to the body of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import EOS, FACTS, IDENTITY, TEACHER, VOCAB, Gated, ToyTokenizer, asked

from cache import TeacherCache
from cache.answers import Request
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from teacher_server.http.answering import answers_to, json_answer, wants_arrays
from teacher_server.http.bodies import AnswerBody, AnswerRow, FailedRow
from teacher_server.http.guard import Key, Scope
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import Served
from teacher_server.http.texts import Texts
from teacher_server.http.wire import MEDIA_TYPE, Answered

PROMPTS: list[Request] = [GenerateRequest((1, 5 + at), (EOS,), 4) for at in range(3)]


def key(scope: Scope) -> Key:
    return Key("me", "0" * 64, (scope,), 0.0)


def with_served(root: Path, play: Callable[[Served, Gated], Coroutine[Any, Any, None]]) -> None:
    gated = Gated(open_gate=True)
    served = Served(SequenceDesk(TeacherCache.open(root, IDENTITY), gated, DeskTerms(vocab=VOCAB, most_k=VOCAB)), FACTS)

    async def run() -> None:
        await play(served, gated)
        await served.desk.close()

    asyncio.run(run())


def test_only_what_is_lacking_is_asked_and_all_stands_in_its_place(tmp_path: Path) -> None:
    async def play(served: Served, gated: Gated) -> None:
        def ask(rows: list[Request]) -> Coroutine[Any, Any, list[Answered[TeacherRecord]]]:
            return answers_to(asked(rows, k=2), desk=served.desk, key=key("ask"), quotas=Quotas())

        await ask(PROMPTS[1:2])
        answers = await ask(PROMPTS)
        assert [each.cached for each in answers] == [False, True, False]
        assert gated.asked == [PROMPTS[1], PROMPTS[0], PROMPTS[2]]
        firsts = [each.outcome.token_ids[:2].tolist() for each in answers if isinstance(each.outcome, TeacherRecord)]
        assert firsts == [[1, 5], [1, 6], [1, 7]]
        lengths = [len(each.outcome.token_ids) for each in answers]  # type: ignore[union-attr]
        assert served.desk.counts.teacher_tokens == sum(lengths)

    with_served(tmp_path, play)


def test_whoever_may_only_read_is_never_the_cause_of_a_question(tmp_path: Path) -> None:
    async def play(served: Served, gated: Gated) -> None:
        await answers_to(asked(PROMPTS[:1], k=2), desk=served.desk, key=key("ask"), quotas=Quotas())
        reader = key("read")
        [answer] = await answers_to(asked(PROMPTS[:1], k=2), desk=served.desk, key=reader, quotas=Quotas())
        assert answer.cached
        with pytest.raises(Refusal, match=r"requests\[1\] and 1 more of 3 rows are not in the cache") as refused:
            await answers_to(asked(PROMPTS, k=2), desk=served.desk, key=reader, quotas=Quotas())
        assert (refused.value.status, refused.value.code) == (403, "not_cached")
        assert gated.asked == PROMPTS[:1]

    with_served(tmp_path, play)


def test_what_the_cache_has_costs_no_tokens_and_what_is_asked_is_charged_once(tmp_path: Path) -> None:
    async def play(served: Served, gated: Gated) -> None:
        quotas = Quotas(tokens_a_minute=13)

        def ask(rows: list[Request]) -> Coroutine[Any, Any, list[Answered[TeacherRecord]]]:
            return answers_to(asked(rows, k=0), desk=served.desk, key=key("ask"), quotas=quotas)

        # Two and four tokens each at most: twelve of thirteen.
        await ask([PROMPTS[0], PROMPTS[0], PROMPTS[1]])
        for _ in range(3):
            assert all(each.cached for each in await ask(PROMPTS[:2]))
        with pytest.raises(Refusal, match="13 tokens of this minute"):
            await ask(PROMPTS)
        assert len(gated.asked) == 2

    with_served(tmp_path, play)


@pytest.mark.parametrize(
    ("accept", "binary"),
    [
        ([], False),
        (["*/*"], False),
        (["application/json"], False),
        ([MEDIA_TYPE], True),
        ([MEDIA_TYPE.upper()], True),
        ([f"application/json;q=0.5, {MEDIA_TYPE}; q=1"], True),
        (["text/html", MEDIA_TYPE], True),
        ([f"{MEDIA_TYPE};q=0"], False),
        ([f"{MEDIA_TYPE} ; q = 0.0, application/json"], False),
        ([MEDIA_TYPE + "x"], False),
        (["", ",;,"], False),
    ],
)
def test_whoever_accepts_the_binary_body_gets_it(accept: list[str], binary: bool) -> None:
    assert wants_arrays(accept) == binary


def test_json_holds_the_arrays_of_every_row(tmp_path: Path) -> None:
    [(_, written)], [(_, scored)] = TEACHER.generate(PROMPTS[:1], k=2), TEACHER.score([ScoreRequest((1, 9, 5), 1)], k=2)  # type: ignore[arg-type]
    assert isinstance(written, TeacherRecord) and isinstance(scored, TeacherRecord)
    answers = [Answered(written, cached=True), Answered(Failure("the prompt is empty")), Answered(scored)]

    async def play(served: Served, gated: Gated) -> None:
        texts = Served(served.desk, served.facts, Texts(ToyTokenizer()))
        for each in (served, texts):
            body = AnswerBody.model_validate_json(json_answer(answers, teacher='no"ise', served=each))
            assert body.teacher == 'no"ise' and body.identity == IDENTITY.digest()
            for row, record, cached in ((body.rows[0], written, True), (body.rows[2], scored, False)):
                assert isinstance(row, AnswerRow)
                assert (row.cached, row.prompt_len, row.finish) == (cached, record.prompt_len, record.finish)
                for name in ("token_ids", "topk_ids", "topk_logprobs", "target_logprobs", "tail_logmass"):
                    assert np.array_equal(np.array(getattr(row, name), dtype="f4"), getattr(record, name)), name
                assert row.text == (each.texts and each.texts.text(record.response_ids.tolist()))
            assert isinstance(body.rows[1], FailedRow)
            assert body.rows[1].error.model_dump() == {"code": "not_answered", "reason": "the prompt is empty"}

    with_served(tmp_path, play)


def test_text_alone_has_no_arrays_and_infinity_is_null(tmp_path: Path) -> None:
    [(_, text)], [(_, whole)] = (TEACHER.generate(PROMPTS[:1], k=k) for k in (0, VOCAB))  # type: ignore[arg-type]

    async def play(served: Served, gated: Gated) -> None:
        body = json.loads(json_answer([Answered(text), Answered(whole)], teacher="noise", served=served))
        assert set(body["rows"][0]) == {"token_ids", "prompt_len", "finish", "cached"}
        assert isinstance(whole, TeacherRecord)
        assert body["rows"][1]["tail_logmass"] == [None] * whole.response_len

    with_served(tmp_path, play)
