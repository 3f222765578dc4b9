"""A teacher of an experiment behind a door over a real socket, which can be away for a while, or lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_app import listening
from starlette.responses import Response

from cache import TeacherCache, TeacherIdentity
from orchestration.inputs.doors import TeacherDoor
from teacher_server import FakeTeacher
from teacher_server.http.app import build_app
from teacher_server.http.client import HttpTeacher
from teacher_server.http.connection import DoorSettings
from teacher_server.http.guard import Guard, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served, TeacherFacts
from teacher_server.http.stepping import SteppedEngine
from teacher_server.requests import StepwiseSource

TOKEN_ENV = "STILLROOM_TEST_TOKEN"


@dataclass
class Moods:
    """An app whose answers to questions a test spoils.

    `away` is how often it still says that it is busy; `from_question` counts questions from which on `spoil` makes
    another body of each answer (None: no answer at all).
    """

    app: Any
    away: int = 0
    spoil: Callable[[bytes], bytes | None] | None = None
    from_question: int = 0
    questions: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.away:
            self.away -= 1
            await Response(status_code=503, headers={"Retry-After": "0.05"})(scope, receive, send)
            return
        self.questions += 1
        if self.spoil is None or self.questions <= self.from_question:
            await self.app(scope, receive, send)
            return
        started: list[Any] = []
        body = bytearray()

        async def collect(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            else:
                body.extend(message.get("body", b""))

        await self.app(scope, receive, collect)
        spoilt = self.spoil(bytes(body))
        if spoilt is None:
            await Response(status_code=503)(scope, receive, send)
            return
        await Response(spoilt, media_type="application/vnd.stillroom.arrays")(scope, receive, send)


@dataclass
class ServedTeacher:
    """An open door: its address and token, what it was asked, and its moods."""

    url: str
    token: str = field(repr=False)
    desk: SequenceDesk
    moods: Moods

    def block(self, **changes: Any) -> dict[str, Any]:
        """How a configuration names it."""
        return {"url": self.url, "token_env": TOKEN_ENV, "patience_s": 5.0} | changes

    def settings(self, **changes: Any) -> DoorSettings:
        """As a run asks it, in small batches."""
        return DoorSettings(self.url, token=self.token, **{"batch_rows": 2, "batches": 2, "budget_s": 20.0} | changes)

    def door(self, **changes: Any) -> TeacherDoor:
        settings = self.settings(**changes)
        with HttpTeacher(settings) as teacher:
            return TeacherDoor(settings, teacher.facts)


def without_weights(model: Path, into: Path) -> Path:
    """A copy of a model as it lies where only the door has its weights."""
    shutil.copytree(model, into)
    (into / "model.safetensors").unlink()
    return into


@contextmanager
def serving(
    root: Path,
    identity: TeacherIdentity,
    *,
    vocab: int,
    stop_ids: tuple[int, ...],
    max_model_len: int,
    most_k: int = 16,
    licence: str | None = None,
    vocab_sha256: str | None = None,
    seed: int = 0,
    source: StepwiseSource | None = None,
) -> Iterator[ServedTeacher]:
    """Open the door of a teacher that believes noise, unless it is another `source`."""
    if source is None:
        source = FakeTeacher(identity, vocab=vocab, seed=seed, eos_id=stop_ids[0], max_model_len=max_model_len)
    engine, tokens = SteppedEngine(source), TokenStore(root / "door-tokens.json")
    terms = DeskTerms(vocab=vocab, most_k=most_k, licence=licence, commit_every_s=0.05)
    desk = SequenceDesk(TeacherCache.open(root / "door-cache", identity), engine, terms)
    facts = TeacherFacts(identity, max_model_len, stop_ids, "Noise", vocab_sha256)
    app = build_app(
        {"noise": Served(desk, facts)},
        guard=Guard(tokens, hosts=["127.0.0.1"]),
        quotas=Quotas(),
        limits=DoorLimits(),
        why_not_ready=lambda: None,
    )
    moods = Moods(app)
    try:
        with listening(moods) as url:
            yield ServedTeacher(url, tokens.new("run", scopes=["ask"]), desk, moods)
    finally:
        engine.close()
