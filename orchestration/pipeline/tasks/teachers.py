"""Several teachers of a task that are asked one after the other, each for its own cache, and combined.

Each is asked as if it were the only one (`TaskDistillConfig.of_teacher`), so what one said is found again by every
other experiment that has it. Where rows are routed a teacher is asked about its own alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from cache.erasures import Erasures
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST
from evaluation.cost import Saved
from evaluation.results import DevScores, FinalScores, TaskExample
from evaluation.tasks.examples import Example
from orchestration.comparison.belief_answers import answers_of_beliefs
from orchestration.comparison.predicted_answers import ANSWERED_BY
from orchestration.comparison.rows import bytes_on_disk, stored_parameters
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_mixture import Together, require_mixable
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.console import Console
from orchestration.pipeline.run import Journal
from orchestration.pipeline.tasks.comparison import GivenAnswers
from orchestration.pipeline.tasks.generative_teaching import GenerativeTeaching
from orchestration.pipeline.tasks.head_teaching import HeadTeaching
from orchestration.pipeline.tasks.lessons import TeacherStates
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.teaching import (
    AskedTaskTeacher,
    HashingProgress,
    TeacherName,
    Teaching,
    Wanted,
)
from orchestration.pipeline.workers import Workers
from student_train.job import TaughtInside
from student_train.starts.task_layers import Rows

TOGETHER = "teachers together"
"""What their mixture is called in the comparison; no teacher or student can bear that name."""

TeachingOf = Callable[[TaskRun, Journal, Workers], Teaching]
"""Makes the way to ask the one teacher of an experiment."""


def usual_teaching(run: TaskRun, journal: Journal, workers: Workers) -> Teaching:
    """By the logits of a head, or in words, as the configuration says."""
    kind = HeadTeaching if run.config.teacher.answers == "head" else GenerativeTeaching
    return kind(run, journal, workers)


@dataclass(frozen=True, slots=True)
class Teachers:
    """Every teacher of an experiment; of one that is the only one nothing is combined."""

    run: TaskRun
    by_name: Mapping[str, Teaching]

    @classmethod
    def of(cls, run: TaskRun, journal: Journal, workers: Workers, *, teaching: TeachingOf) -> Teachers:
        """Those that the configuration names, each asked by a `teaching` of its own."""
        config = run.config
        return cls(
            run,
            {
                name: teaching(replace(run, config=config.of_teacher(name), asks=name), journal, workers)
                for name in config.every_teacher
            },
        )

    def require(self, task: LoadedTask, *, progress: HashingProgress) -> str:
        """Refuse teachers that cannot do the task, or not together; in a few words who they are.

        Raises:
            ConfigError: one cannot be asked about this task, or they cannot be mixed.
            ModelError: one cannot be found, or does not answer in this way.
        """
        require_mixable(self.run.config, task)
        said = {name: each.require(task, progress=progress) for name, each in self.by_name.items()}
        if len(said) == 1:
            return said[FIRST]
        return "; ".join(f"{name}: {words}" for name, words in said.items())

    def forgotten(self, task: LoadedTask, examples: Sequence[Example], erasures: Erasures) -> list[bool]:
        """Whether any of them reads an example as something that was forgotten."""
        each = [teaching.forgotten(task, examples, erasures) for teaching in self.by_name.values()]
        return [any(found) for found in zip(*each, strict=True)]

    def plan(self, task: LoadedTask, sets: TaskSets, *, prepared: Mapping[str, Path]) -> AskedTaskTeacher:
        """What they are asked about these sets; `prepared` are the directories of those that were tuned."""
        if len(self.by_name) == 1:
            return self.by_name[FIRST].plan(task, sets, prepared=prepared.get(FIRST))
        asked = {
            name: each.plan(
                task_of_teacher(task, sets, name), sets.of_teacher(name), prepared=prepared.get(name), tests=True
            )
            for name, each in self.by_name.items()
        }
        return AskedTogether(asked, task, self.run.config, sets.routed)


@dataclass(frozen=True, slots=True)
class AskedTogether:
    """See `AskedTaskTeacher`: several teachers, and which of them has which example where rows are routed."""

    by_name: Mapping[str, AskedTaskTeacher]
    task: LoadedTask
    config: TaskDistillConfig
    routed: Mapping[Example, str]

    @property
    def _first(self) -> AskedTaskTeacher:
        return self.by_name[FIRST]

    @property
    def name(self) -> TeacherName:
        """See `AskedTaskTeacher`."""
        return self._first.name

    @property
    def names(self) -> dict[str, TeacherName]:
        """See `AskedTaskTeacher`."""
        return {name: asked.name for name, asked in self.by_name.items()}

    @property
    def wanted(self) -> Wanted:
        """See `AskedTaskTeacher`."""
        each = [asked.wanted for asked in self.by_name.values()]
        return Wanted(
            sum(one.answers for one in each), sum(one.misses for one in each), sum(one.stored_bytes for one in each)
        )

    @property
    def inside(self) -> TeacherStates | None:
        """See `AskedTaskTeacher`: that of the first."""
        return self._first.inside

    @property
    def taught(self) -> TaughtInside | None:
        """See `AskedTaskTeacher`: the first."""
        return self._first.taught

    def show(self, console: Console) -> None:
        """See `AskedTaskTeacher`."""
        console.say(f"{self.config.combined}.")
        for name, asked in self.by_name.items():
            console.say(f"{name}, {asked.name.label}:")
            asked.show(console)

    def saved(self) -> Saved:
        """See `AskedTaskTeacher`."""
        return reduce(Saved.plus, (asked.saved() for asked in self.by_name.values()))

    def ask(self) -> None:
        """See `AskedTaskTeacher`: one after the other, so that engines of one alone take memory."""
        for asked in self.by_name.values():
            asked.ask()

    def pin(self, folder: Path) -> dict[str, str]:
        """See `AskedTaskTeacher`: the first one's views lie where those of an only teacher do."""
        found = self._first.pin(folder)
        for name, asked in self.by_name.items():
            if name != FIRST:
                found |= {f"{name}/{view}": digest for view, digest in asked.pin(folder / name).items()}
        return found

    def rows(self) -> Rows:
        """See `AskedTaskTeacher`."""
        return self._first.rows()

    def about(self, examples: Sequence[Example]) -> list[Beliefs | Together | None]:
        """See `TeacherBeliefs`: what all believe together, or what the one believes that a row is routed to."""
        if self.routed:
            return self._routed(examples)
        each = [asked.about(examples) for asked in self.by_name.values()]
        shares = self.config.shares.values()
        found: list[Beliefs | Together | None] = []
        for beliefs in zip(*each, strict=True):
            known = tuple((w, one) for w, one in zip(shares, beliefs, strict=True) if isinstance(one, Beliefs))
            found.append(Together(self.task.config.kind, known) if len(known) == len(each) else None)
        return found

    def given(self) -> dict[str, GivenAnswers]:
        """See `AskedTaskTeacher`: what they answer together."""
        name, route = self.task.config.name, self.config.route
        models = [each.directory for each in self.names.values()]
        answers = GivenAnswers(
            dev=DevScores(name, ANSWERED_BY, self._answered(self.task.dev)),
            test=FinalScores(name, ANSWERED_BY, self._answered(self.task.test)),
            parameters=sum(map(stored_parameters, models)),
            disk_bytes=sum(map(bytes_on_disk, models)),
            digest=digest_of(
                teachers={name: each.identity.digest() for name, each in self.names.items()},
                combined=self.config.shares if route is None else route.model_dump(),
            ),
            note="answered from what each of them said to the cache; how fast they are together is not measured",
        )
        alone = {name: given for name, asked in self.by_name.items() for given in asked.given().values()}
        return {TOGETHER: answers, **alone}

    def _answered(self, examples: Sequence[Example]) -> tuple[TaskExample, ...]:
        beliefs = [belief.at(1.0) if isinstance(belief, Together) else belief for belief in self.about(examples)]
        return answers_of_beliefs(examples, beliefs, task=self.task.config)

    def notes(self) -> tuple[str, ...]:
        """See `AskedTaskTeacher`."""
        return tuple(f"{name}: {note}" for name, asked in self.by_name.items() for note in asked.notes())

    def _routed(self, examples: Sequence[Example]) -> list[Beliefs | Together | None]:
        found: list[Beliefs | Together | None] = [None] * len(examples)
        for name, asked in self.by_name.items():
            places = [at for at, example in enumerate(examples) if self.routed[example] == name]
            for at, belief in zip(places, asked.about([examples[at] for at in places]), strict=True):
                found[at] = belief if isinstance(belief, Beliefs) else None
        return found


def task_of_teacher(task: LoadedTask, sets: TaskSets, name: str) -> LoadedTask:
    """The task with the held-out examples that are routed to a teacher; all where none is routed."""
    return replace(task, dev=sets.part_of(name, task.dev), test=sets.part_of(name, task.test))
