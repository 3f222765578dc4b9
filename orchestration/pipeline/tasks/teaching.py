"""How the teacher of a task is asked, whether it answers by a head (`head_teaching`) or writes (`generative_teaching`).

A `Teaching` refuses what cannot work before anything is loaded, and then says what the cache lacks. The teacher that it
gives is asked once, and knows what was answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache import TeacherIdentity
from cache.erasures import Erasures
from evaluation.cost import Saved
from evaluation.tasks.examples import Example
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.preflight import require_cache
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.console import Console
from orchestration.pipeline.run import Journal
from orchestration.pipeline.tasks.comparison import GivenAnswers
from orchestration.pipeline.tasks.lessons import TeacherBeliefs, TeacherStates
from orchestration.pipeline.tasks.run import TaskRun
from student_train.job import TaughtInside
from student_train.starts.task_layers import Rows

HashingProgress = Callable[[int, int], None]
"""Told the bytes that were hashed, and how many there are."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TeacherName:
    """Who a teacher is: its directory, what it is called, its identity."""

    directory: Path
    label: str
    identity: TeacherIdentity


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a teacher is asked: answers that are wanted, those that the cache lacks, and the bytes they will take."""

    answers: int
    misses: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of asking: the digests of the views of its answers by set, and what the cache saved."""

    views: dict[str, str]
    saved: Saved


class AskedTaskTeacher(TeacherBeliefs, Protocol):
    """A teacher, and what an experiment asks it."""

    @property
    def name(self) -> TeacherName:
        """Who it is; of several the first, which students are cut from."""
        ...

    @property
    def names(self) -> Mapping[str, TeacherName]:
        """All that are asked, by what they are called in the comparison."""
        ...

    @property
    def wanted(self) -> Wanted:
        """What it is asked."""
        ...

    @property
    def inside(self) -> TeacherStates | None:
        """What is inside it; None where its engines do not show that."""
        ...

    @property
    def taught(self) -> TaughtInside | None:
        """It, for students that learn from its inside; None as for `inside`."""
        ...

    def show(self, console: Console) -> None:
        """Print what the cache lacks, and what that will take."""
        ...

    def saved(self) -> Saved:
        """What those answers took that the cache holds already, whoever bought them."""
        ...

    def ask(self) -> None:
        """Ask for what the cache lacks, as stages of the run; engines that were started are ended.

        Raises:
            BudgetReached: a budget ended it before everything was there.
            EngineError: an engine does not say what its weights say, or kept dying.
        """
        ...

    def pin(self, folder: Path) -> dict[str, str]:
        """Save a view of what was answered about every set into `folder`; digests by the name of the set."""
        ...

    def rows(self) -> Rows:
        """Token ids of the texts of all sets, for starts that measure the teacher."""
        ...

    def given(self) -> Mapping[str, GivenAnswers]:
        """What was answered on dev and test where no model can be opened that does, by who answered."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What is to be said about its answers once they are there, a line each."""
        ...


class Teaching(Protocol):
    """A way to ask the teacher of an experiment."""

    def require(self, task: LoadedTask, *, progress: HashingProgress) -> str:
        """Refuse a teacher that cannot do the task; in a few words who it is.

        Raises:
            ConfigError: it cannot be asked about this task.
            ModelError: it cannot be found, or does not answer in this way.
        """
        ...

    def forgotten(self, task: LoadedTask, examples: Sequence[Example], erasures: Erasures) -> list[bool]:
        """Whether the teacher reads an example as something that was forgotten."""
        ...

    def plan(self, task: LoadedTask, sets: TaskSets, *, prepared: Path | None, tests: bool = False) -> AskedTaskTeacher:
        """What the teacher is asked about these sets and dev; `prepared` is the directory of one that was tuned.

        With `tests` it is asked about the test split too, as one that writes is in any case.
        """
        ...


def ask_teacher(asked: AskedTaskTeacher, *, run: TaskRun, journal: Journal) -> Answered:
    """Have everything in the cache that an experiment wants of a teacher."""
    wanted, saved = asked.wanted, asked.saved().beyond(journal.ledger.counts().fill)
    asked.show(journal.console)
    require_cache(run.config.runtime.cache_root, needed_bytes=wanted.stored_bytes)
    journal.tracker.child("fill", params={"misses": wanted.misses}, tags={"role": "fill"})
    asked.ask()
    for note in asked.notes():
        journal.console.warn(note)
    views = asked.pin(run.directory / "views")
    logger.info("views: %s", views)
    journal.track(
        "fill",
        {
            "cache/hit_rate": 1.0 - wanted.misses / wanted.answers if wanted.answers else 1.0,
            "fill/teacher_tokens": float(journal.ledger.counts().fill),
        },
    )
    return Answered(views, saved)
