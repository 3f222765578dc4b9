"""What is asked of a model while an engine serves it: its answers, its tasks, its speed.

Starting an engine or loading weights into one is what takes time, so a model is loaded once and then examined in every
way that is due. An examination keeps what it finds as an artifact of its own: one that was made before, for whatever
experiment, is not due again, and one that fails costs the others nothing. A row of the comparison is put together from
what is kept, each examination adding its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache import TeacherIdentity
from cache.identity import Identity
from configs import BudgetReached, DistillError
from evaluation.results import ModelResults
from orchestration.cluster.engine_pool import AnsweringPool
from orchestration.inputs.other_tokens import OtherTokens


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be examined. `role` is teacher, untouched or student.

    `method` and `start` are those of `evaluation.results.ModelResults`. `tokens` is what it reads where it has another
    tokenizer than the teacher.
    """

    name: str
    role: str
    digest: str
    directory: Path
    identity: Identity
    parameters: int
    method: str = ""
    start: str | None = None
    tokens: OtherTokens | None = None

    @property
    def by_weights(self) -> TeacherIdentity:
        """Who it is by its weights, which an engine of this run serves."""
        assert isinstance(self.identity, TeacherIdentity)
        return self.identity


class Finding(Protocol):
    """What is kept of a model, and its part of a row."""

    @property
    def title(self) -> str:
        """What it finds, for progress and failures ("answers", "task intents", "speed")."""
        ...

    def address(self, candidate: Candidate) -> str | None:
        """The digest under which it keeps what it finds of a model; None where it is not made of such a model."""
        ...

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """The row with what is kept of this model; as it was where nothing is."""
        ...


class Examination(Finding, Protocol):
    """One way to examine a model that an engine serves."""

    def due(self, candidate: Candidate) -> bool:
        """Whether it is made of such a model and was not made of this one before."""
        ...

    def teacher_tokens(self) -> int:
        """Teacher tokens that it takes at most, when the teacher itself is examined."""
        ...

    def run(self, candidate: Candidate, pool: AnsweringPool) -> None:
        """Examine the model that `pool` serves, and keep the result.

        Raises:
            DistillError: it could not be examined in this way.
        """
        ...


def examine(candidate: Candidate, due: Sequence[Examination], pool: AnsweringPool) -> list[str]:
    """Make every examination that is due of the model that `pool` serves; a line for each that failed.

    Raises:
        BudgetReached: nothing more may be asked.
    """
    failures = []
    for examination in due:
        try:
            examination.run(candidate, pool)
        except BudgetReached:
            raise
        except DistillError as error:
            failures.append(f"{examination.title}: {error}")
    return failures
