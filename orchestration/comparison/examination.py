"""What is asked of a model while an engine serves it: its answers, its tasks, its speed.

Starting an engine or loading weights into one is what takes time, so a model is loaded once and then examined in every
way that is due. An examination keeps what it finds as an artifact of its own: one that was made before, for whatever
experiment, is not due again, and one that fails costs the others nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache import TeacherIdentity
from orchestration.cluster.engine_pool import EnginePool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be examined. `role` is teacher, untouched or student."""

    name: str
    role: str
    digest: str
    directory: Path
    identity: TeacherIdentity
    parameters: int


class Examination(Protocol):
    """One way to examine a model."""

    @property
    def title(self) -> str:
        """What it finds, for progress and failures ("answers", "task intents", "speed")."""
        ...

    def due(self, candidate: Candidate) -> bool:
        """Whether it was not made of this model before."""
        ...

    def teacher_tokens(self) -> int:
        """Teacher tokens that it takes at most, when the teacher itself is examined."""
        ...

    def run(self, candidate: Candidate, pool: EnginePool) -> None:
        """Examine the model that `pool` serves, and keep the result.

        Raises:
            DistillError: it could not be examined in this way.
        """
        ...
