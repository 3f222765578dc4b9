"""A teacher that says what it sees in texts, behind a door in this process: random values, a real tokenizer of words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doors import IDENTITY
from signal_builders import respond
from task_heads import WORDS, save_span_finder
from transformers import AutoTokenizer

from cache import Signal, SignalRequest, TeacherCache
from configs import EngineError
from teacher_server.http.desk import KeepingTerms
from teacher_server.http.signals.desk import Reply, SignalDesk
from teacher_server.http.signals.served import ServedSignals, SignalFacts
from teacher_server.http.signals.texts import SignalTexts

FACTS = SignalFacts(
    IDENTITY,
    "Noise",
    max_tokens=8,
    vocab=len(WORDS),
    gives="class_logits",
    labels=("good", "bad", "mixed"),
    layers=2,
    hidden=4,
)
CLASSES, STATE = Signal("class_logits"), Signal("state", layer=2, position="mean")


class Seeing:
    """Answers once it is let, and remembers what it was asked; dies of the first `deaths` questions."""

    def __init__(self, *, open_gate: bool = True, deaths: int = 0) -> None:
        self.asked: list[tuple[SignalRequest, ...]] = []
        self.gate = asyncio.Event()
        self.deaths = deaths
        if open_gate:
            self.gate.set()

    async def signals(self, requests: Sequence[SignalRequest]) -> Reply:
        self.asked.append(tuple(requests))
        await self.gate.wait()
        if self.deaths:
            self.deaths -= 1
            raise EngineError("killed")
        return [respond(each, width=FACTS.width(each.signal), identity=IDENTITY) for each in requests]

    async def until_asked(self, count: int = 1) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0.005)


def signal_desk(root: Path, seeing: Seeing, **terms: Any) -> SignalDesk:
    """A desk that writes when it is told to."""
    kept = {"encoding": "signal-f32", "commit_every_s": 3600.0} | terms
    return SignalDesk(TeacherCache.open(root, IDENTITY), seeing, KeepingTerms(**kept))


def words_and_pairs(place: Path) -> SignalTexts:
    """A tokenizer of the words of `task_heads`, which frames one text and two by [CLS] and [SEP]."""
    return SignalTexts(AutoTokenizer.from_pretrained(save_span_finder(place)))


def served_signals(root: Path, seeing: Seeing, **terms: Any) -> ServedSignals:
    return ServedSignals(signal_desk(root / "signals", seeing, **terms), FACTS, words_and_pairs(root / "tokenizer"))
