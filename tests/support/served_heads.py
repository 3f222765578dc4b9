"""A teacher with a task head behind a door over a real socket, as another machine would serve it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from open_app import listening
from served_teachers import TOKEN_ENV, Moods

from cache import TeacherCache
from configs.doors import DoorConfig
from orchestration.cluster.serving_signals import Passes
from orchestration.inputs.task_teachers import TaskTeacher
from teacher_server.features import SignalModel
from teacher_server.http.app import build_app
from teacher_server.http.desk import KeepingTerms
from teacher_server.http.guard import Guard, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.served import DoorLimits
from teacher_server.http.signals.desk import SignalDesk
from teacher_server.http.signals.served import ServedSignals, SignalFacts
from teacher_server.http.signals.texts import SignalTexts


@dataclass
class ServedHeadDoor:
    """An open door: its address and token, and its moods."""

    url: str
    token: str = field(repr=False)
    moods: Moods

    def block(self, **changes: Any) -> dict[str, Any]:
        """The block `serve` of a teacher; the token has to be in the environment (`TOKEN_ENV`)."""
        return {"url": self.url, "token_env": TOKEN_ENV, "patience_s": 10.0} | changes

    def place(self, **changes: Any) -> DoorConfig:
        return DoorConfig.model_validate(self.block(**changes))


@contextmanager
def serving_head(
    root: Path, teacher: TaskTeacher, *, licence: str | None = None, **facts: Any
) -> Iterator[ServedHeadDoor]:
    """Open the door of a classifier that answers; `facts` are told otherwise than they are."""
    told = SignalFacts(
        teacher.identity,
        teacher.label,
        max_tokens=16,
        vocab=teacher.model.vocab,
        gives="class_logits",
        labels=teacher.model.labels,
        layers=teacher.model.layers,
        hidden=teacher.model.hidden,
    )
    tokens = TokenStore(root / "door-tokens.json")
    cache = TeacherCache.open(root / "door-cache", teacher.identity)
    terms = KeepingTerms(encoding="signal-f32", licence=licence, commit_every_s=0.05)
    desk = SignalDesk(cache, Passes(SignalModel(teacher.directory, teacher.identity)), terms)
    app = build_app(
        {},
        signals={"seer": ServedSignals(desk, replace(told, **facts), SignalTexts(teacher.tokenizer))},
        guard=Guard(tokens, hosts=["127.0.0.1"]),
        quotas=Quotas(),
        limits=DoorLimits(),
        why_not_ready=lambda: None,
    )
    moods = Moods(app)
    with listening(moods) as url:
        yield ServedHeadDoor(url, tokens.new("run", scopes=["ask"]), moods)
