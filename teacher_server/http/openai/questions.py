"""From a body of OpenAI's protocol to requests to the teacher, checked as a whole before anything is asked.

    prompt           each text or list of ids is a question of its own; texts get what the tokenizer puts around one
    n                draws of one seed (`replicate` 0..n-1); at temperature 0 they are all one, and asked once
    seed             0 where none is given: the same request has the same answer, and another seed has another one
    stop             is looked for in what the teacher wrote (`spans`): the teacher itself ends at token ids
    echo + logprobs  the prompt is scored; with `max_tokens` 0 nothing is written

A temperature of 0 makes equal all that does not move the maximum, so that equal questions meet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cache.answers import Request
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.http.bodies import ChatMessage
from teacher_server.http.openai.bodies import AskedBody, AskedMessage, ChatBody, CompletionBody
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import (
    DoorLimits,
    Served,
    reading_texts,
    require_answerable,
    require_at_most,
    require_fitting,
    require_k,
    require_texts,
)

COMPLETION_TOKENS = 16
"""`max_tokens` of a completion that does not say, as OpenAI has it."""

CHAT_TOKENS = 1024
"""Of a chat that does not say; less where the longest sequence of the teacher leaves less."""


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, where it stands in the body, and what is asked of the teacher about it.

    `scored` is for the log-probabilities of the prompt itself, `written` are its answers.
    """

    place: str
    prompt_ids: tuple[int, ...]
    scored: ScoreRequest | None
    written: tuple[GenerateRequest, ...]

    @property
    def requests(self) -> tuple[Request, ...]:
        """All of it, the prompt first."""
        return self.written if self.scored is None else (self.scored, *self.written)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """All questions of a body, and how their answers are told.

    `k` log-probabilities a position are asked for. `top` of them are told of each token of an answer, and `prompt_top`
    of each token of a prompt (vLLM's `prompt_logprobs`); None tells none. `answers` of each prompt are told.
    """

    questions: tuple[Question, ...]
    k: int
    top: int | None
    prompt_top: int | None
    answers: int
    stops: tuple[str, ...]
    echo: bool
    token_ids: bool
    stream: bool
    usage_streamed: bool

    @property
    def requests(self) -> list[Request]:
        """What the teacher is asked, question by question."""
        return [request for question in self.questions for request in question.requests]


def asked_completions(body: CompletionBody, *, served: Served, limits: DoorLimits) -> Inquiry:
    """What `POST /v1/completions` asks.

    Raises:
        Refusal: 413 where it is too much, 422 where it cannot be answered.
    """
    new = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if not new and not body.echo:
        raise _invalid("max_tokens", "max_tokens=0 writes nothing: give at least 1, or echo")
    if body.best_of not in (None, body.n or 1):
        raise _invalid(
            "best_of", f"best_of={body.best_of} is not n={body.n or 1}: the door gives every answer it draws"
        )
    prompts = _prompts(body)
    require_at_most("prompt", len(prompts) * (body.n or 1), at_most=limits.most_rows, unit="rows")
    ids = {}
    for place, prompt in prompts.items():
        with reading_texts(place):
            ids[place] = require_texts(served).prompt(prompt) if isinstance(prompt, str) else tuple(prompt)
    limit = _Limit("max_tokens", new)
    return _inquiry(body, ids, limit=limit, top=body.logprobs, echo=bool(body.echo), served=served, limits=limits)


def asked_chat(body: ChatBody, *, served: Served, limits: DoorLimits) -> Inquiry:
    """What `POST /v1/chat/completions` asks.

    Raises:
        Refusal: 413 where it is too much, 422 where it cannot be answered.
    """
    if body.top_logprobs and not body.logprobs:
        raise _invalid("top_logprobs", f"top_logprobs={body.top_logprobs} needs logprobs=true")
    require_at_most("n", body.n or 1, at_most=limits.most_rows, unit="rows")
    with reading_texts("messages"):
        ids = require_texts(served).conversation([_message(each) for each in body.messages])
    top = (body.top_logprobs or 0) if body.logprobs else None
    limit = _chat_limit(body, room=served.facts.max_model_len - len(ids))
    return _inquiry(body, {"messages": ids}, limit=limit, top=top, echo=False, served=served, limits=limits)


@dataclass(frozen=True, slots=True)
class _Limit:
    """How many tokens may be written, and the field that says so."""

    field: str
    tokens: int


def _chat_limit(body: ChatBody, *, room: int) -> _Limit:
    given = {name: getattr(body, name) for name in ("max_completion_tokens", "max_tokens")}
    said = {name: tokens for name, tokens in given.items() if tokens is not None}
    if len(set(said.values())) > 1:
        reason = f"max_tokens={body.max_tokens} is not max_completion_tokens={body.max_completion_tokens}: give one"
        raise _invalid("max_tokens", reason)
    field, tokens = next(iter(said.items()), ("messages", max(1, min(CHAT_TOKENS, room))))
    return _Limit(field, tokens)


def _inquiry(
    body: AskedBody,
    prompts: dict[str, tuple[int, ...]],
    *,
    limit: _Limit,
    top: int | None,
    echo: bool,
    served: Served,
    limits: DoorLimits,
) -> Inquiry:
    """What is the same for both routes; `prompts` are token ids by the places where they stand."""
    if body.stream_options is not None and not body.stream:
        raise _invalid("stream_options", "stream_options needs stream=true")
    if body.prompt_logprobs is not None and body.stream:
        raise _invalid("prompt_logprobs", f"prompt_logprobs={body.prompt_logprobs} is not streamed: leave out stream")
    field = "logprobs" if isinstance(body, CompletionBody) else "top_logprobs"
    wanted = {field: top, "prompt_logprobs": body.prompt_logprobs}
    numbers = {name: k for name, k in wanted.items() if k is not None}
    for name, k in numbers.items():
        require_k(max(k, 1), served=served, field=name)
    scores = body.prompt_logprobs is not None or (echo and top is not None)
    questions = tuple(
        _question(body, place, ids, limit=limit, scores=scores, served=served) for place, ids in prompts.items()
    )
    options, stops = body.stream_options, body.stop
    inquiry = Inquiry(
        questions=questions,
        k=max(1, *numbers.values()) if numbers else 0,
        top=top,
        prompt_top=body.prompt_logprobs,
        answers=body.n or 1,
        stops=() if stops is None else (stops,) if isinstance(stops, str) else tuple(stops),
        echo=echo,
        token_ids=bool(body.return_token_ids),
        stream=bool(body.stream),
        usage_streamed=options is not None and bool(options.include_usage),
    )
    rows = "prompt" if isinstance(body, CompletionBody) else "messages"
    require_fitting(inquiry.requests, k=inquiry.k, limits=limits, rows=rows, k_field=next(iter(numbers), field))
    return inquiry


def _question(
    body: AskedBody, place: str, ids: tuple[int, ...], *, limit: _Limit, scores: bool, served: Served
) -> Question:
    longest, prompt = served.facts.max_model_len, len(ids)
    # Scoring takes the room of one token too.
    tokens = max(limit.tokens, 1)
    if prompt + tokens > longest:
        reason = f"{limit.field}={limit.tokens}: " if limit.field != place else ""
        reason += f"{place} has {prompt} tokens, and with {tokens} more exceeds max_model_len={longest}"
        raise Refusal(422, "context_length_exceeded", reason, param=limit.field)
    first = GenerateRequest(ids, max_new_tokens=tokens, **_sampling(body, served=served))
    require_answerable(first, served=served, place=place)
    draws = range(body.n or 1) if limit.tokens else ()
    greedy = first.temperature == 0
    return Question(
        place,
        ids,
        scored=ScoreRequest(ids, 1) if scores and prompt > 1 else None,
        written=tuple(first if greedy else replace(first, replicate=draw) for draw in draws),
    )


def _sampling(body: AskedBody, *, served: Served) -> dict[str, Any]:
    own = () if body.ignore_eos else served.facts.stop_ids
    how: dict[str, Any] = {
        "stop_ids": tuple(sorted({*own, *(body.stop_token_ids or ())})),
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "repetition_penalty": 1.0 if body.repetition_penalty is None else body.repetition_penalty,
    }
    if how["temperature"] == 0:
        return how
    return how | {
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_k": max(body.top_k or 0, 0),
        "min_p": body.min_p or 0.0,
        "sampling_seed": body.seed or 0,
    }


def _prompts(body: CompletionBody) -> dict[str, str | list[int]]:
    """Every prompt by its place."""
    given = body.prompt
    if isinstance(given, str):
        return {"prompt": given}
    ids = [each for each in given if isinstance(each, int)]
    if ids:
        return {"prompt": ids}
    return {f"prompt[{at}]": each for at, each in enumerate(given) if isinstance(each, str | list)}


def _message(asked: AskedMessage) -> ChatMessage:
    content = asked.content if isinstance(asked.content, str) else "".join(part.text for part in asked.content)
    return ChatMessage(role="system" if asked.role == "developer" else asked.role, content=content)


def _invalid(field: str, reason: str) -> Refusal:
    return Refusal(422, "invalid_request", reason, param=field)
