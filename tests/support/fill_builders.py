"""A cache, requests that it may hold, and fills of it with engines in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from local_engines import EOS, IDENTITY, VOCAB

from cache import GenerateRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.disk.local_storage import LocalStorage
from cache.failures import Failures
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, FillResult, fill
from orchestration.fill.work import Engines
from orchestration.outputs.console import StageProgress
from orchestration.plan.requests import Refused, SequenceSet, plan_fill

UNLIMITED = Budgets(None, None)
ANSWER = 12


def ask(number: int, *, limit: int = ANSWER, prompt_tokens: int = 2) -> GenerateRequest:
    return GenerateRequest(prompt_ids=(number,) * prompt_tokens, stop_ids=(EOS,), max_new_tokens=limit)


def prompts(count: int, *, first: int = 3) -> tuple[Request, ...]:
    return tuple(ask(number) for number in range(first, first + count))


def teacher_set(requests: Sequence[Request], *, split: str = "train", k: int = 4) -> SequenceSet:
    return SequenceSet("teacher", split, tuple(requests), k)


class Filling:
    """A cache and what is done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = TeacherCache.open(root, IDENTITY)
        self.ledger = root.parent / "ledger"
        self.engine = {"vllm": "1"}

    def order(self, *, commit_every_s: float = 1e6) -> FillOrder:
        return FillOrder(False, self.root, 0, commit_every_s, "cc0", {"model": "fake"}, self.ledger, engine=self.engine)

    def failures(self) -> Failures:
        """What a new reader finds that could not be answered."""
        return Failures(LocalStorage(self.root / IDENTITY.digest()), identity=IDENTITY.digest(), engine=self.engine)

    def fill(
        self,
        *sets: SequenceSet,
        engines: Engines[Request],
        budgets: Budgets = UNLIMITED,
        commit_every_s: float = 1e6,
        refused: Refused | None = None,
    ) -> FillResult[Request]:
        self.cache.refresh()
        return fill(
            plan_fill(sets, cache=self.cache, refused=refused),
            cache=self.cache,
            engines=engines,
            order=self.order(commit_every_s=commit_every_s),
            budgets=budgets,
            vocab=VOCAB,
            progress=StageProgress("fill", total=None, unit="rows", started=time.monotonic()),
        )

    def records(self, part: SequenceSet) -> list[TeacherRecord]:
        """What a new reader finds of the rows of a set."""
        cache = TeacherCache.open(self.root, IDENTITY)
        keys = [key for key in cache.lookup(part.requests, k=part.k) if key is not None]
        return [record for record in cache.get_many(keys, k=part.k) if record is not None]
