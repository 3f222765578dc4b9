"""From a teacher's answers to choices, whole or in parts."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from doors import EOS, FIRST_CHARACTER, SPECIAL, TEACHER, ToyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from teacher_server.http.openai.choices import (
    CHUNK_TOKENS,
    Choice,
    chat_parts,
    chat_prompt,
    choices_of,
    completion_parts,
    usage_of,
    whole_chat,
    whole_completion,
)
from teacher_server.http.openai.questions import Inquiry, Question
from teacher_server.http.refusals import Refusal
from teacher_server.http.texts import Texts
from teacher_server.http.wire import Answered

PIECES = Texts(ToyTokenizer(), stop_ids=(EOS,)).pieces
PROMPT = (SPECIAL["<bos>"], FIRST_CHARACTER + ord("H"), FIRST_CHARACTER + ord("i"))


def exact(request: GenerateRequest | ScoreRequest, *, k: int) -> TeacherRecord:
    source: Any = TEACHER.generate if isinstance(request, GenerateRequest) else TEACHER.score
    [(_, record)] = source([request], k=k)
    assert isinstance(record, TeacherRecord)
    return record


def inquiry_of(
    *,
    new: int = 40,
    n: int = 1,
    top: int | None = 2,
    prompt_top: int | None = None,
    stops: tuple[str, ...] = (),
    echo: bool = False,
    prompts: int = 1,
) -> Inquiry:
    """Questions about prompts that differ by their last token; answers end at the bound alone."""
    questions = []
    for at in range(prompts):
        ids = (*PROMPT, FIRST_CHARACTER + at)
        written = tuple(
            GenerateRequest(ids, (), new, temperature=1.0, replicate=draw) for draw in range(n if new else 0)
        )
        scores = prompt_top is not None or (echo and top is not None)
        questions.append(Question(f"prompt[{at}]", ids, ScoreRequest(ids, 1) if scores else None, written))
    return Inquiry(
        questions=tuple(questions), k=4, top=top, prompt_top=prompt_top, answers=n, stops=stops, echo=echo,
        token_ids=True, stream=False, usage_streamed=False,
    )  # fmt: skip


def choices(inquiry: Inquiry) -> list[Choice]:
    answers = [Answered(exact(request, k=inquiry.k)) for request in inquiry.requests]
    return choices_of(inquiry, answers, pieces=PIECES)


def text_of(token_ids: list[int]) -> str:
    return ToyTokenizer().decode(token_ids, skip_special_tokens=True)


def test_an_answer_is_told_with_what_was_believed() -> None:
    inquiry = inquiry_of()
    [choice] = choices(inquiry)
    record = exact(inquiry.requests[0], k=4)
    told = whole_completion(choice, inquiry, PIECES)
    assert told.token_ids == record.response_ids.tolist() and told.prompt_token_ids == list(
        inquiry.questions[0].prompt_ids
    )
    assert told.text == text_of(told.token_ids) and told.finish_reason == "length"
    assert told.logprobs is not None and record.target_logprobs is not None
    assert told.logprobs.token_logprobs == record.target_logprobs.tolist()
    assert all(2 <= len(each) <= 3 for each in told.logprobs.top_logprobs if each is not None)
    assert usage_of(inquiry, [choice]).model_dump() == {"prompt_tokens": 4, "completion_tokens": 40, "total_tokens": 44}


def test_choices_stand_prompt_by_prompt_and_prompts_are_paid_once() -> None:
    inquiry = inquiry_of(prompts=2, n=3, new=5)
    found = choices(inquiry)
    assert [each.index for each in found] == list(range(6))
    assert [each.prompt_ids[-1] - FIRST_CHARACTER for each in found] == [0, 0, 0, 1, 1, 1]
    assert [each.span.token_ids for each in found] == [
        tuple(exact(request, k=1).response_ids.tolist()) for request in inquiry.requests
    ]
    assert usage_of(inquiry, found).total_tokens == 2 * 4 + 6 * 5


@given(data=st.data())
def test_a_stop_cuts_text_tokens_and_beliefs_at_one_place(data: st.DataObject) -> None:
    inquiry = inquiry_of()
    [whole] = choices(inquiry)
    begin = data.draw(st.integers(0, len(whole.span.text) - 1))
    stop = whole.span.text[begin : begin + data.draw(st.integers(1, 3))]
    [cut] = choices(inquiry_of(stops=("never", stop)))
    assert cut.span.text == whole.span.text[: whole.span.text.index(stop)] and cut.finish == "stop"
    kept = len(cut.span.token_ids)
    assert cut.span.token_ids == whole.span.token_ids[:kept]
    assert whole.beliefs is not None and cut.beliefs == whole.beliefs[:kept]
    # What was written behind it was paid for.
    assert cut.paid_tokens == whole.paid_tokens == 40


def test_echo_puts_the_prompt_before_every_answer() -> None:
    inquiry = inquiry_of(echo=True, n=2, new=3)
    prompt_ids = list(inquiry.questions[0].prompt_ids)
    scored = exact(ScoreRequest(tuple(prompt_ids), 1), k=4)
    for choice in choices(inquiry):
        told = whole_completion(choice, inquiry, PIECES)
        assert told.token_ids is not None and told.token_ids[:4] == prompt_ids and len(told.token_ids) == 7
        assert told.text == "Hi\x00" + text_of(told.token_ids[4:])
        assert told.logprobs is not None and told.logprobs.tokens[:3] == ["<bos>", "H", "i"]
        assert told.logprobs.token_logprobs[0] is None and told.logprobs.top_logprobs[0] is None
        assert scored.target_logprobs is not None
        assert told.logprobs.token_logprobs[1:4] == scored.target_logprobs.tolist()
        assert told.logprobs.text_offset[:5] == [0, 0, 1, 2, 3]
        lengths = {len(told.logprobs.tokens), len(told.logprobs.token_logprobs), len(told.logprobs.text_offset)}
        assert lengths == {7}


def test_scoring_alone_writes_nothing() -> None:
    inquiry = inquiry_of(echo=True, new=0, prompts=2)
    found = choices(inquiry)
    assert [each.finish for each in found] == ["length", "length"]
    assert [each.span.token_ids for each in found] == [question.prompt_ids for question in inquiry.questions]
    assert usage_of(inquiry, found).completion_tokens == 0
    # As many as were asked for, though they are one.
    again = inquiry_of(echo=True, new=0, n=3)
    assert len(choices(again)) == 3


def test_beliefs_about_prompts_are_told_beside_the_answer() -> None:
    inquiry = inquiry_of(top=None, prompt_top=1, new=3)
    found = choices(inquiry)
    told = whole_completion(found[0], inquiry, PIECES)
    assert told.logprobs is None and told.prompt_logprobs is not None and len(told.prompt_logprobs) == 4
    assert told.prompt_logprobs[0] is None
    second = told.prompt_logprobs[1]
    assert second is not None and str(PROMPT[1]) in second and len(second) <= 2
    chat = chat_prompt(found, inquiry, PIECES)
    assert chat.prompt_logprobs == told.prompt_logprobs and chat.prompt_token_ids == told.prompt_token_ids


def test_a_prompt_of_one_token_is_followed_by_nothing_that_could_be_scored() -> None:
    question = Question("prompt", (5,), None, ())
    inquiry = inquiry_of(echo=True, new=0)
    alone = Inquiry(**{name: getattr(inquiry, name) for name in Inquiry.__slots__} | {"questions": (question,)})  # type: ignore[attr-defined]
    [told] = choices(alone)
    assert told.beliefs == [None] and told.span.token_ids == (5,)


@pytest.mark.parametrize("stops", [(), ("\n",), ("Q", "x")])
@pytest.mark.parametrize("new", [1, CHUNK_TOKENS, CHUNK_TOKENS + 1, 40])
def test_parts_are_the_whole(new: int, stops: tuple[str, ...]) -> None:
    inquiry = inquiry_of(new=new, stops=stops, echo=True)
    [choice] = choices(inquiry)
    whole = whole_completion(choice, inquiry, PIECES)
    *parts, last = completion_parts(choice, inquiry, PIECES)
    assert "".join(part.text for part in parts) == whole.text
    assert list(chain.from_iterable(part.token_ids or [] for part in parts)) == whole.token_ids
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        told = list(chain.from_iterable(getattr(part.logprobs, name) for part in parts))
        assert told == getattr(whole.logprobs, name)
    assert [part.finish_reason for part in (*parts, last)] == [None] * len(parts) + [whole.finish_reason]
    assert all(len(part.token_ids or []) <= CHUNK_TOKENS for part in parts)


def test_parts_of_a_chat_are_the_whole() -> None:
    inquiry = inquiry_of()
    [choice] = choices(inquiry)
    whole = whole_chat(choice, inquiry, PIECES)
    first, *parts, last = chat_parts(choice, inquiry, PIECES)
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    assert "".join(part.delta.content or "" for part in parts) == whole.message.content
    assert whole.logprobs is not None
    assert [entry for part in parts if part.logprobs for entry in part.logprobs.content] == whole.logprobs.content
    assert "".join(bytes(entry.bytes or b"").decode() for entry in whole.logprobs.content) == whole.message.content
    assert (last.delta.content, last.finish_reason) == (None, whole.finish_reason)


def test_one_that_the_teacher_could_not_answer_is_named() -> None:
    inquiry = inquiry_of(prompts=2, new=3)
    answers = [Answered(exact(inquiry.requests[0], k=4)), Answered(Failure("it does not support that"))]
    with pytest.raises(Refusal, match=r"^prompt\[1\]: it does not support that$") as refused:
        choices_of(inquiry, answers, pieces=PIECES)
    assert (refused.value.status, refused.value.code, refused.value.param) == (422, "not_answered", "prompt[1]")


def test_the_token_that_ends_an_answer_stands_last_and_is_no_text() -> None:
    ids = (*PROMPT, FIRST_CHARACTER)
    ended = next(
        (request, record)
        for request in (GenerateRequest(ids, (EOS,), 40, temperature=1.0, replicate=at) for at in range(100))
        if (record := exact(request, k=4)).finish == "stop" and record.response_len > 2
    )
    inquiry = inquiry_of()
    inquiry = Inquiry(
        **{name: getattr(inquiry, name) for name in Inquiry.__slots__}  # type: ignore[attr-defined]
        | {"questions": (Question("prompt", ids, None, (ended[0],)),)}
    )
    [choice] = choices_of(inquiry, [Answered(ended[1])], pieces=PIECES)
    told = whole_completion(choice, inquiry, PIECES)
    assert told.finish_reason == "stop" and told.logprobs is not None and told.logprobs.tokens[-1] == "<eos>"
    assert "<eos>" not in told.text and told.logprobs.text_offset[-1] == len(told.text)
