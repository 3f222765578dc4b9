"""The routes of OpenAI's protocol, over the desks of a door.

    POST /v1/completions, /v1/chat/completions
    GET  /v1/models, /v1/models/{model}

They ask what `POST /v1/score` and `/v1/generate` ask, in other words: the same cache, quotas, limits and scopes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Security
from fastapi.security import HTTPBearer
from starlette.responses import Response

from cache import TeacherRecord
from teacher_server.http.bodies import Body
from teacher_server.http.door import Door
from teacher_server.http.exchange import exchange_of
from teacher_server.http.guard import require_scope
from teacher_server.http.openai.answer_bodies import (
    AnswerHead,
    ChatAnswer,
    CompletionAnswer,
    ModelFacts,
    ModelsBody,
)
from teacher_server.http.openai.bodies import ChatBody, CompletionBody
from teacher_server.http.openai.choices import (
    Choice,
    chat_parts,
    chat_prompt,
    choices_of,
    completion_parts,
    usage_of,
    whole_chat,
    whole_completion,
)
from teacher_server.http.openai.questions import Inquiry, asked_chat, asked_completions
from teacher_server.http.openai.streaming import MEDIA_TYPE, Streamed
from teacher_server.http.pieces import Pieces
from teacher_server.http.served import Served
from teacher_server.http.wire import Answered

OWNER = "stillroom"

NO_TEXTS = Pieces(lambda token: None, names={})
"""Of a teacher whose tokenizer is not here: its tokens have numbers alone."""

Told = Callable[[Choice, Inquiry, Pieces], Body]
ToldInParts = Callable[[Choice, Inquiry, Pieces], Iterator[Body]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What tells the two routes apart: names, and the form of a choice. `more` is told once beside all choices."""

    prefix: str
    whole: Literal["text_completion", "chat.completion"]
    chunk: Literal["text_completion", "chat.completion.chunk"]
    choice: Told
    parts: ToldInParts
    more: Callable[[Sequence[Choice], Inquiry, Pieces], Body] | None = None


COMPLETIONS = Dialect("cmpl-", "text_completion", "text_completion", whole_completion, completion_parts)
CHATS = Dialect("chatcmpl-", "chat.completion", "chat.completion.chunk", whole_chat, chat_parts, chat_prompt)


def openai_routes(door: Door, *, errors: Mapping[int | str, dict[str, Any]]) -> APIRouter:
    """The routes; `errors` describes by status what may go wrong on them."""
    opened = int(time.time())
    router = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))], responses=dict(errors))

    @router.post("/v1/completions", responses=_described(CompletionAnswer))
    async def completions(body: CompletionBody, request: Request) -> Response:
        """What a teacher writes behind a prompt, or believes about it."""
        name, served = door.served(body.model, field="model")
        inquiry = await asyncio.to_thread(asked_completions, body, served=served, limits=door.limits)
        return await _respond(door, request, inquiry, name=name, dialect=COMPLETIONS)

    @router.post("/v1/chat/completions", responses=_described(ChatAnswer))
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """What a teacher answers in a conversation."""
        name, served = door.served(body.model, field="model")
        inquiry = await asyncio.to_thread(asked_chat, body, served=served, limits=door.limits)
        return await _respond(door, request, inquiry, name=name, dialect=CHATS)

    @router.get("/v1/models")
    async def models(request: Request) -> ModelsBody:
        """The teachers, by the names that `model` takes."""
        _require_reader(request)
        return ModelsBody(data=[_facts(name, served, opened=opened) for name, served in door.desks.items()])

    @router.get("/v1/models/{model}")
    async def model(model: str, request: Request) -> ModelFacts:
        """One teacher by the name that `model` takes."""
        _require_reader(request)
        return _facts(*door.served(model, field="model"), opened=opened)

    return router


def _require_reader(request: Request) -> None:
    key = exchange_of(request.scope).key
    assert key is not None
    require_scope(key, "read")


def _facts(name: str, served: Served, *, opened: int) -> ModelFacts:
    return ModelFacts(id=name, created=opened, owned_by=OWNER, max_model_len=served.facts.max_model_len)


async def _respond(door: Door, request: Request, inquiry: Inquiry, *, name: str, dialect: Dialect) -> Response:
    exchange, served = exchange_of(request.scope), door.desks[name]
    pieces = NO_TEXTS if served.texts is None else served.texts.pieces
    head = AnswerHead(
        id=dialect.prefix + exchange.request_id,
        object=dialect.chunk if inquiry.stream else dialect.whole,
        created=int(time.time()),
        model=name,
        system_fingerprint=f"fp_{served.facts.identity.digest()[:16]}",
    )

    async def ask() -> list[Answered[TeacherRecord]]:
        # A prompt that is given back as it is needs no teacher.
        return await door.answers(exchange, requests, k=inquiry.k, name=name) if requests else []

    def whole(answers: list[Answered[TeacherRecord]]) -> str:
        return _whole_json(head, choices_of(inquiry, answers, pieces=pieces), inquiry, dialect, pieces)

    def parts(answers: list[Answered[TeacherRecord]]) -> Iterator[str]:
        return _part_jsons(head, choices_of(inquiry, answers, pieces=pieces), inquiry, dialect, pieces)

    requests = inquiry.requests
    if inquiry.stream:
        return await Streamed(asyncio.create_task(ask()), parts, exchange=exchange, limits=door.limits).response()
    return Response(await asyncio.to_thread(whole, await ask()), media_type="application/json")


def _whole_json(head: AnswerHead, choices: Sequence[Choice], inquiry: Inquiry, dialect: Dialect, pieces: Pieces) -> str:
    """An answer, written choice by choice, so that others get a turn in between."""
    said = ",".join(dialect.choice(each, inquiry, pieces).model_dump_json() for each in choices)
    fields = [_fields(head), f'"choices":[{said}]', f'"usage":{usage_of(inquiry, choices).model_dump_json()}']
    if dialect.more is not None:
        fields.append(_fields(dialect.more(choices, inquiry, pieces)))
    return "{" + ",".join(fields) + "}"


def _part_jsons(
    head: AnswerHead, choices: Sequence[Choice], inquiry: Inquiry, dialect: Dialect, pieces: Pieces
) -> Iterator[str]:
    """The parts of a streamed answer; the last one may tell what it took."""
    begin = _fields(head)
    for choice in choices:
        for part in dialect.parts(choice, inquiry, pieces):
            yield f'{{{begin},"choices":[{part.model_dump_json()}],"usage":null}}'
    if inquiry.usage_streamed:
        yield f'{{{begin},"choices":[],"usage":{usage_of(inquiry, choices).model_dump_json()}}}'


def _fields(body: Body) -> str:
    """The JSON of a body without its braces."""
    return body.model_dump_json()[1:-1]


def _described(model: type[Body]) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": model,
            "description": "the answer; with stream=true its parts as server-sent events",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        }
    }
