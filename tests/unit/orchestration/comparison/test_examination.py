"""Examinations that fail cost the others nothing, and a budget that is used up ends them all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cache import TeacherIdentity
from configs import BudgetReached, DistillError, EngineError
from evaluation.results import ModelResults
from orchestration.comparison.examination import Candidate, examine

IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
KD = Candidate("kd", "student", "d" * 64, Path("models/kd"), IDENTITY, 1234)


@dataclass
class Recorded:
    """An examination that notes what it was made of, and fails if it is told so."""

    title: str
    fails: DistillError | None = None
    made: list[str] = field(default_factory=list)

    def address(self, candidate: Candidate) -> str | None:
        return candidate.digest

    def due(self, candidate: Candidate) -> bool:
        return candidate.name not in self.made

    def teacher_tokens(self) -> int:
        return 0

    def run(self, candidate: Candidate, pool: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.made.append(candidate.name)

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        return replace(row, method=self.title)


def test_one_that_fails_is_named_and_the_others_are_made() -> None:
    before, after = Recorded("answers"), Recorded("speed")
    broken = Recorded("task intents", EngineError("the engine refuses"))
    assert examine(KD, [before, broken, after], pool=None) == ["task intents: the engine refuses"]  # type: ignore[arg-type]
    assert (before.made, broken.made, after.made) == (["kd"], [], ["kd"])


def test_a_budget_ends_them_all() -> None:
    after = Recorded("speed")
    with pytest.raises(BudgetReached):
        examine(KD, [Recorded("answers", BudgetReached("used up")), after], pool=None)  # type: ignore[arg-type]
    assert after.made == []
