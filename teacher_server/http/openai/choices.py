"""From a teacher's answers to the choices that a client is told, whole or in parts.

A choice is one answer to one prompt. With `echo` its text and tokens begin with those of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from cache.protocols import Failure
from cache.records import TeacherRecord
from teacher_server.http.openai.answer_bodies import (
    AnswerMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatLogProbs,
    ChatPrompt,
    CompletionChoice,
    CompletionLogProbs,
    Delta,
    FinishReason,
    Usage,
)
from teacher_server.http.openai.beliefs import (
    Belief,
    Beliefs,
    beliefs_of,
    chat_tokens,
    completion_logprobs,
    prompt_logprobs,
)
from teacher_server.http.openai.questions import Inquiry, Question
from teacher_server.http.openai.spans import Span, cut_at
from teacher_server.http.pieces import Pieces
from teacher_server.http.refusals import Refusal
from teacher_server.http.wire import Answered

CHUNK_TOKENS = 16
"""Of one part of a streamed answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer, ready to be told.

    `beliefs` are about the tokens of `span`, `prompt_beliefs` about those of the prompt; None where they were not asked
    for. `paid_tokens` is what the teacher wrote, tokens behind a stop text included.
    """

    index: int
    prompt_ids: tuple[int, ...]
    span: Span
    beliefs: Beliefs | None
    prompt_beliefs: Beliefs | None
    finish: FinishReason
    paid_tokens: int


def choices_of(inquiry: Inquiry, answers: Sequence[Answered[TeacherRecord]], *, pieces: Pieces) -> list[Choice]:
    """The choices in the order of the prompts, all answers to one behind the other.

    Raises:
        Refusal: 422, the teacher could not answer one of them.
    """
    given = iter(answers)
    choices: list[Choice] = []
    for question in inquiry.questions:
        scored = None if question.scored is None else _record(next(given), question=question)
        written = [_record(next(given), question=question) for _ in question.written]
        for record in written if question.written else repeat(None, inquiry.answers):
            choices.append(_choice(len(choices), inquiry, question, scored=scored, written=record, pieces=pieces))
    return choices


def usage_of(inquiry: Inquiry, choices: Sequence[Choice]) -> Usage:
    """What it took, prompts counted once."""
    prompts, written = (
        sum(len(each.prompt_ids) for each in inquiry.questions),
        sum(each.paid_tokens for each in choices),
    )
    return Usage(prompt_tokens=prompts, completion_tokens=written, total_tokens=prompts + written)


def whole_completion(choice: Choice, inquiry: Inquiry, pieces: Pieces) -> CompletionChoice:
    """All of a completion."""
    prompted = choice.prompt_beliefs
    return CompletionChoice(
        index=choice.index,
        text=choice.span.text,
        logprobs=_completion_logprobs(choice, slice(None), offsets=choice.span.offsets(), pieces=pieces),
        finish_reason=choice.finish,
        token_ids=list(choice.span.token_ids) if inquiry.token_ids else None,
        prompt_token_ids=list(choice.prompt_ids) if inquiry.token_ids else None,
        prompt_logprobs=None if prompted is None else prompt_logprobs(prompted, pieces=pieces),
    )


def whole_chat(choice: Choice, inquiry: Inquiry, pieces: Pieces) -> ChatChoice:
    """All of a chat's answer."""
    return ChatChoice(
        index=choice.index,
        message=AnswerMessage(content=choice.span.text),
        logprobs=_chat_logprobs(choice, slice(None), pieces=pieces),
        finish_reason=choice.finish,
        token_ids=list(choice.span.token_ids) if inquiry.token_ids else None,
    )


def chat_prompt(choices: Sequence[Choice], inquiry: Inquiry, pieces: Pieces) -> ChatPrompt:
    """What is told of the prompt that all answers of a chat share."""
    first = choices[0]
    prompted = first.prompt_beliefs
    return ChatPrompt(
        prompt_token_ids=list(first.prompt_ids) if inquiry.token_ids else None,
        prompt_logprobs=None if prompted is None else prompt_logprobs(prompted, pieces=pieces),
    )


def completion_parts(choice: Choice, inquiry: Inquiry, pieces: Pieces) -> Iterator[CompletionChoice]:
    """A completion in parts, the last of which says how it ended."""
    offsets = choice.span.offsets()
    for part in _parts(choice):
        yield CompletionChoice(
            index=choice.index,
            text="".join(choice.span.parts[part]),
            logprobs=_completion_logprobs(choice, part, offsets=offsets[part], pieces=pieces),
            finish_reason=None,
            token_ids=list(choice.span.token_ids[part]) if inquiry.token_ids else None,
            prompt_token_ids=list(choice.prompt_ids) if inquiry.token_ids and not part.start else None,
        )
    yield CompletionChoice(index=choice.index, text="", logprobs=None, finish_reason=choice.finish)


def chat_parts(choice: Choice, inquiry: Inquiry, pieces: Pieces) -> Iterator[ChatChunkChoice]:
    """A chat's answer in parts, the first of which says who speaks and the last how it ended."""

    def chunk(delta: Delta, *, part: slice | None = None, finish: FinishReason | None = None) -> ChatChunkChoice:
        return ChatChunkChoice(
            index=choice.index,
            delta=delta,
            logprobs=None if part is None else _chat_logprobs(choice, part, pieces=pieces),
            finish_reason=finish,
            token_ids=list(choice.span.token_ids[part]) if inquiry.token_ids and part is not None else None,
        )

    yield chunk(Delta(role="assistant", content=""))
    for part in _parts(choice):
        yield chunk(Delta(content="".join(choice.span.parts[part])), part=part)
    yield chunk(Delta(), finish=choice.finish)


def _choice(
    index: int,
    inquiry: Inquiry,
    question: Question,
    *,
    scored: TeacherRecord | None,
    written: TeacherRecord | None,
    pieces: Pieces,
) -> Choice:
    span = Span((), ())
    finish: FinishReason = "length"
    beliefs: list[Belief | None] | None = None if inquiry.top is None else []
    if written is not None:
        ids = written.response_ids.tolist()
        span = cut_at(ids, pieces.pieces(ids), stops=inquiry.stops)
        finish = "stop" if span.stopped or written.finish == "stop" else "length"
        if inquiry.top is not None:
            beliefs = [*beliefs_of(written, top=inquiry.top)[: len(span.token_ids)]]
    prompted: list[Belief | None] | None = None
    if inquiry.echo:
        own = cut_at(question.prompt_ids, pieces.pieces(question.prompt_ids, opens_text=True))
        span = Span(own.token_ids + span.token_ids, own.parts + span.parts, stopped=span.stopped)
        if beliefs is not None:
            assert inquiry.top is not None
            beliefs = _prompt_beliefs(scored, top=inquiry.top) + beliefs
    if inquiry.prompt_top is not None:
        prompted = _prompt_beliefs(scored, top=inquiry.prompt_top)
    return Choice(
        index,
        question.prompt_ids,
        span,
        beliefs,
        prompted,
        finish=finish,
        paid_tokens=0 if written is None else written.response_len,
    )


def _prompt_beliefs(scored: TeacherRecord | None, *, top: int) -> list[Belief | None]:
    """About each token of a prompt; one of a single token is not scored, for nothing stands before it."""
    return [None] if scored is None else [None, *beliefs_of(scored, top=top)]


def _parts(choice: Choice) -> Iterator[slice]:
    count = len(choice.span.token_ids)
    return (slice(at, min(at + CHUNK_TOKENS, count)) for at in range(0, count, CHUNK_TOKENS))


def _completion_logprobs(
    choice: Choice, part: slice, *, offsets: list[int], pieces: Pieces
) -> CompletionLogProbs | None:
    if choice.beliefs is None:
        return None
    return completion_logprobs(
        choice.beliefs[part], token_ids=choice.span.token_ids[part], offsets=offsets, pieces=pieces
    )


def _chat_logprobs(choice: Choice, part: slice, *, pieces: Pieces) -> ChatLogProbs | None:
    if choice.beliefs is None:
        return None
    return ChatLogProbs(content=chat_tokens([each for each in choice.beliefs[part] if each is not None], pieces=pieces))


def _record(answer: Answered[TeacherRecord], *, question: Question) -> TeacherRecord:
    if isinstance(answer.outcome, Failure):
        place = question.place
        raise Refusal(422, answer.outcome.code, f"{place}: {answer.outcome.reason}", param=place)
    return answer.outcome
