"""The door as a deployment of Ray Serve: desks over the caches of its teachers, and the app before them.

It is one replica, so that equal requests meet in it and are asked once. It writes to the cache; engines do not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from logging.handlers import WatchedFileHandler
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from configs import configure_logging
from configs.serving import LOOPBACK_NAMES, ServeConfig
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.serving_sequences import ServedTeacher, sequence_desk, served_sequences
from orchestration.cluster.serving_signals import ServedHead, served_signals
from orchestration.outputs.redirect import redirect_output
from teacher_server.http.app import build_app
from teacher_server.http.door import every_desk
from teacher_server.http.exchange import ACCESS_LOG
from teacher_server.http.guard import Guard, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.served import DoorLimits
from teacher_server.http.signals.labels import LabelDesk, LabelReader, LabelTexts
from teacher_server.http.signals.served import ServedSignals, SignalFacts

ACCESSES = "access.jsonl"
"""Below the logs: a line for each request."""


@dataclass(frozen=True, slots=True)
class ServedWords:
    """A language model that the door serves as a teacher of signals: how it is asked, and what is told of it."""

    model: ServedTeacher
    reader: LabelReader
    facts: SignalFacts

    @property
    def spec(self) -> EngineSpec:
        """Its engines."""
        return self.model.spec


Behind = ServedTeacher | ServedHead | ServedWords
"""Whom a door serves: a language model, a model with a task head, a language model that knows labels by their words."""


@serve.ingress()
class Door:
    """The door: desks over the caches of its teachers, and the app before them."""

    def __init__(
        self,
        teachers: Mapping[str, Behind],
        settings: ServeConfig,
        tokens: Path,
        log_dir: Path,
        engines: Mapping[str, DeploymentHandle],
    ) -> None:
        redirect_output(log_dir / "door.log")
        configure_logging(log_dir / "door.log")
        _write_accesses(log_dir / ACCESSES)
        self._settings, self._tokens = settings, tokens
        self._served = {
            name: served_sequences(each, engines[name])
            for name, each in teachers.items()
            if isinstance(each, ServedTeacher)
        }
        self._signals = {
            name: _served_words(each, engines[name])
            if isinstance(each, ServedWords)
            else served_signals(each, engines[name])
            for name, each in teachers.items()
            if not isinstance(each, ServedTeacher)
        }

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        settings = self._settings
        return build_app(
            self._served,
            signals=self._signals,
            guard=Guard(TokenStore(self._tokens), hosts={settings.host, *settings.hosts, *LOOPBACK_NAMES}),
            quotas=Quotas(requests_a_minute=settings.requests_a_minute, tokens_a_minute=settings.tokens_a_minute),
            limits=DoorLimits(
                most_rows=settings.most_rows,
                most_tokens=settings.most_tokens,
                most_body_bytes=settings.most_body_bytes,
                request_s=settings.request_s,
                body_s=settings.body_s,
            ),
            why_not_ready=self._why_not_ready,
        )

    async def drain(self) -> None:
        """Let nobody in any more, answer who is inside, and write what was answered."""
        await self.app.state.door.drain()  # type: ignore[attr-defined]

    def _why_not_ready(self) -> str | None:
        for name, desk in every_desk(self._served, self._signals).items():
            if desk.writing_fails:
                return f"what {name} answers cannot be written"
        return None


def _served_words(words: ServedWords, handle: DeploymentHandle) -> ServedSignals:
    desk = LabelDesk(sequence_desk(words.model, handle), words.reader, identity=words.facts.identity.digest())
    return ServedSignals(desk, words.facts, LabelTexts(words.reader))


def _write_accesses(path: Path) -> None:
    """A line of JSON for each request into a file of their own, which others may rotate."""
    handler = WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    accesses = logging.getLogger(ACCESS_LOG)
    accesses.addHandler(handler)
    accesses.setLevel(logging.INFO)
    accesses.propagate = False
