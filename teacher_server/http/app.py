"""The door: teachers as a service for many, over HTTP.

    POST /v1/score, /v1/generate    rows in, answers out: in JSON, or as the arrays of `teacher_server.http.wire`
    POST /v1/signals                the same of teachers that say what they see in texts (`teacher_server.http.signals`)
    GET  /v1/teachers               who is behind the door, and what they can be asked
    POST /v1/completions, /v1/chat/completions, GET /v1/models
                                    the same teachers for clients of OpenAI's protocol (`teacher_server.http.openai`)
    GET  /metrics                   for Prometheus
    GET  /healthz, /readyz          whether the process lives, and whether it can answer
    GET  /openapi.json              all of this for programs

A server that runs it must not write an access log of its own: theirs hold paths and queries (`exchange` writes ours).
It has to run the lifespan of the app, which ends with `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from cache.answers import Request as Asked
from teacher_server.http.answering import json_answer, wants_arrays
from teacher_server.http.bodies import (
    AnswerBody,
    Body,
    ErrorBody,
    GenerateBody,
    OpenAiErrorBody,
    ScoreBody,
    StateBody,
    TeacherBody,
)
from teacher_server.http.door import Door, WhyNotReady, every_desk
from teacher_server.http.exchange import exchange_of
from teacher_server.http.guard import Guard, Key, require_scope
from teacher_server.http.layers import DRAINING_RETRY_S, Admission, Admitted, Entrance, Envelope, TimeLimit, WholeBody
from teacher_server.http.metrics import Metrics
from teacher_server.http.openai.routes import openai_routes
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal, as_refusal, error_response
from teacher_server.http.served import DoorLimits, Served, scored_requests, written_requests
from teacher_server.http.signals.answering import json_signals, told_signals
from teacher_server.http.signals.bodies import SignalsAnswer, SignalsBody, TeachersBody
from teacher_server.http.signals.served import ServedSignals, SignalInquiry, asked_signals
from teacher_server.http.signals.wire import encode_signals
from teacher_server.http.wire import MEDIA_TYPE, encode_records

_ANYWHERE = {
    400: "the request is not one",
    405: "another method",
    408: "the body was not there in time",
    413: "too much at once",
    415: "a body that is not JSON",
    421: "another Host",
    500: "a defect",
    503: "the door is being closed, or what it needs is away: see Retry-After",
    504: "no answer in time; what was asked goes on",
}
_WITH_TOKEN = {
    401: "no valid token",
    403: "the token does not allow it",
    429: "a quota or a queue is full: see Retry-After",
}
NO_SIGNALS: Mapping[str, ServedSignals] = {}
_ASKED = {404: "no such teacher", 422: "the body says what cannot be asked"}


def build_app(
    desks: Mapping[str, Served],
    *,
    signals: Mapping[str, ServedSignals] = NO_SIGNALS,
    guard: Guard,
    quotas: Quotas,
    limits: DoorLimits,
    why_not_ready: WhyNotReady,
) -> FastAPI:
    """The door to these teachers, by the names that they are asked under; its `state.door` is a `Door`.

    Those of `desks` write and score sequences; those of `signals`, of other names, say what they see in texts.
    """
    metrics = Metrics(every_desk(desks, signals))
    door = Door(desks, signals, quotas, limits, why_not_ready, metrics, Admission())
    app = FastAPI(
        title="Stillroom",
        summary="Teachers that are asked once.",
        version="1",
        # The pages of documentation load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan,
        middleware=[
            Middleware(Envelope, metrics=metrics),
            Middleware(Admitted, admission=door.admission),
            Middleware(Entrance, guard=guard, quotas=quotas),
            Middleware(TimeLimit, limits=limits),
            Middleware(WholeBody, limits=limits),
        ],
        exception_handlers={HTTPException: _refused, RequestValidationError: _refused},
    )
    app.state.door = door
    app.include_router(_questions(door))
    app.include_router(openai_routes(door, errors=_errors(_ANYWHERE | _WITH_TOKEN | _ASKED, OpenAiErrorBody)))
    app.include_router(_probes(door))
    return app


def _questions(door: Door) -> APIRouter:
    """What needs a token."""
    router = APIRouter(
        dependencies=[Security(HTTPBearer(auto_error=False))], responses=_errors(_ANYWHERE | _WITH_TOKEN)
    )
    answered = _answered_with(AnswerBody)

    @router.post("/v1/score", responses=answered | _errors(_ASKED))
    async def score(body: ScoreBody, request: Request) -> Response:
        """What a teacher believes about given sequences."""
        name, served = door.served(body.teacher)
        requests = await asyncio.to_thread(scored_requests, body, served=served, limits=door.limits)
        return await _answer(door, request, requests, k=body.k, name=name)

    @router.post("/v1/generate", responses=answered | _errors(_ASKED))
    async def generate(body: GenerateBody, request: Request) -> Response:
        """What a teacher writes."""
        name, served = door.served(body.teacher)
        requests = await asyncio.to_thread(written_requests, body, served=served, limits=door.limits)
        return await _answer(door, request, requests, k=body.k, name=name)

    @router.post("/v1/signals", responses=_answered_with(SignalsAnswer) | _errors(_ASKED))
    async def signals(body: SignalsBody, request: Request) -> Response:
        """What a teacher sees in given texts: logits of its head, hidden states."""
        name, served = door.served_signals(body.teacher)
        inquiry = await asyncio.to_thread(asked_signals, body, served=served, limits=door.limits)
        return await _seen(door, request, inquiry, name=name)

    @router.get("/v1/teachers")
    async def teachers(request: Request) -> TeachersBody:
        """Who is behind the door, and what they can be asked."""
        require_scope(_key(request), "read")
        return TeachersBody(
            teachers=[_told(name, served) for name, served in door.desks.items()],
            signals=[told_signals(name, each) for name, each in door.signals.items()],
        )

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics(request: Request) -> Response:
        """Numbers for Prometheus."""
        require_scope(_key(request), "read")
        return Response(door.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _probes(door: Door) -> APIRouter:
    """What is told to everybody."""
    router = APIRouter(responses=_errors(_ANYWHERE))

    @router.get("/healthz")
    async def healthz() -> StateBody:
        """Whether the process lives."""
        return StateBody(state="alive")

    @router.get("/readyz")
    async def readyz() -> StateBody:
        """Whether it can answer."""
        if door.admission.closed:
            raise Refusal(503, "draining", "the door is being closed", retry_after_s=DRAINING_RETRY_S)
        reason = door.why_not_ready() or door.unwritten
        if reason is not None:
            raise Refusal(503, "not_ready", reason, retry_after_s=DRAINING_RETRY_S)
        return StateBody(state="ready")

    return router


async def _answer(door: Door, request: Request, requests: list[Asked], *, k: int, name: str) -> Response:
    """The answer to these requests in the form that the client takes."""
    answers, served = await door.answers(exchange_of(request.scope), requests, k=k, name=name), door.desks[name]
    if wants_arrays(request.headers.getlist("accept")):
        body = await asyncio.to_thread(encode_records, answers, identity=served.facts.identity.digest())
        return Response(body, media_type=MEDIA_TYPE)
    body = await asyncio.to_thread(json_answer, answers, teacher=name, served=served)
    return Response(body, media_type="application/json")


async def _seen(door: Door, request: Request, inquiry: SignalInquiry, *, name: str) -> Response:
    """As `_answer`, of signals."""
    exchange, served = exchange_of(request.scope), door.signals[name]
    answers = await door.seen(exchange, inquiry.questions, name=name, per_row=len(inquiry.signals))
    if wants_arrays(request.headers.getlist("accept")):
        identity = served.facts.identity.digest()
        body = await asyncio.to_thread(encode_signals, answers, inquiry.texts, inquiry.signals, identity=identity)
        return Response(body, media_type=MEDIA_TYPE)
    body = await asyncio.to_thread(json_signals, answers, inquiry, teacher=name, served=served)
    return Response(body, media_type="application/json")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.door.drain()


async def _refused(request: Request, error: Exception) -> Response:
    refusal = as_refusal(error)
    assert refusal is not None
    exchange = exchange_of(request.scope)
    return error_response(refusal, request_id=exchange.request_id, openai=exchange.openai)


def _errors(said: Mapping[int, str], model: type[Body] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model, "description": why} for status, why in said.items()}


def _answered_with(model: type[Body]) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": model,
            "description": "the rows in the order of the requests",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    }


def _key(request: Request) -> Key:
    key = exchange_of(request.scope).key
    assert key is not None
    return key


def _told(name: str, served: Served) -> TeacherBody:
    facts, terms = served.facts, served.desk.terms
    return TeacherBody(
        name=name,
        identity=facts.identity.digest(),
        fields=asdict(facts.identity),
        verifiable=facts.identity.verifiable,
        vocab=terms.vocab,
        most_k=terms.most_k,
        max_model_len=facts.max_model_len,
        stop_ids=list(facts.stop_ids),
        label=facts.label,
        licence=terms.licence,
        vocab_sha256=facts.vocab_sha256,
    )
