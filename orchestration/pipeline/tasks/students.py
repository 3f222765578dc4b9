"""The students of a task, and a teacher that is prepared: addressed, trained by stages, reused where they exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from configs.task_experiment import TaskDistillConfig
from configs.task_features import StateName
from configs.task_stages import GOLD, TaskStageConfig, TaskStudentConfig
from evaluation.verdict import AUGMENTED_ALONE, GOLD_ALONE
from orchestration.outputs.artifacts import digest_of
from orchestration.pipeline.links import stage_axis
from orchestration.pipeline.run import Journal
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.tasks.chain import TaskChain, gold_alone, of_seed, task_chain
from orchestration.pipeline.tasks.lessons import Reader, StageLessons
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.pipeline.tasks.starts import MadeStart, StartsOf, made_start, reader_of
from orchestration.pipeline.tasks.training import TaskTraining, TaskWords
from orchestration.pipeline.workers import Workers
from orchestration.plan.task_features import state_names
from orchestration.tracking.tracker import flatten
from student_train.feed.examples import ExampleSet
from student_train.feed.task_steps import task_steps
from student_train.models.task_model import stored_inside


@dataclass(frozen=True, slots=True)
class TaskTrainer:
    """Everything that trains the students of an experiment."""

    run: TaskRun
    journal: Journal
    workers: Workers
    lessons: StageLessons
    words: TaskWords

    def train(self, chain: TaskChain) -> TaskChain:
        """Train every stage of a chain that does not exist yet; what has to be said about its data is said once.

        Raises:
            DistillError: a stage cannot work with this data or start.
            TrainingError: a worker failed; the checkpoint of the last save remains.
        """
        axis = stage_axis([_steps(link.stage, learned=link.lesson.train) for link in chain.links])
        for link, steps in zip(chain.links, axis, strict=True):
            stage = TaskTraining(chain, link, steps, self.words, self.run, self.journal, self.workers)
            run_stage(stage, settings=self.run, journal=self.journal)
        return chain

    def addressed(self, name: str, *, stages: Sequence[TaskStageConfig], start: MadeStart, reader: Reader) -> TaskChain:
        """The chain of a student, its lessons written, nothing trained."""
        return task_chain(
            name,
            stages=stages,
            start=start,
            lesson=lambda stage: self.lessons.of(stage, reader, states=self._states(stage, start)),
            kind=self.words.kind,
            labels=self.words.labels,
            artifacts=self.run.artifacts,
            taught=self.words.taught,
        )

    def _states(self, stage: TaskStageConfig, start: MadeStart) -> tuple[StateName, ...]:
        taught = self.words.taught
        # General stages have their teacher beside them, whatever they take.
        if not stage.features or taught is None or self.words.general:
            return ()
        return state_names(stage, student=stored_inside(start.described), teacher=taught.sizes)


@dataclass(frozen=True, slots=True)
class TrainedStudents:
    """Every student as it was trained: one chain a seed, by its name in the table.

    `twins` are those that were trained without a teacher, each with the student that it is compared with.
    """

    chains: Mapping[str, tuple[TaskChain, ...]]
    twins: Mapping[str, str]


class GeneralStarts(Protocol):
    """Whoever trains the general stages of students (`orchestration.pipeline.tasks.general.GeneralStages`)."""

    def start_of(self, name: str, student: TaskStudentConfig) -> MadeStart:
        """Where the stages of a task begin, once `train` was called."""
        ...

    def train(self) -> None:
        """Train all that was asked for and does not exist yet."""
        ...


def train_students(trainer: TaskTrainer, *, starts: StartsOf, general: GeneralStarts | None = None) -> TrainedStudents:
    """Train the students of an experiment, each with those that learn the same without a teacher.

    All are addressed first, so that one that cannot work costs no training.
    """
    config = trainer.run.config
    planned: dict[str, list[TaskChain]] = {}
    twins: dict[str, str] = {}
    for name, student in config.students.items():
        for seed in range(student.seeds):
            number = f" seed {seed}" if student.seeds > 1 else ""
            stages = of_seed(student.stages, seed=seed)
            if student.general:
                assert general is not None
                start = general.start_of(name, student)
            else:
                start = made_start(student.start, seed=stages[0].seed, of=starts)
            reader = _reader(student, start, trainer=trainer)
            chain = trainer.addressed(f"{name}{number}", stages=stages, start=start, reader=reader)
            planned.setdefault(name, []).append(chain)
            for ending, data in _without_teacher(config, name).items():
                twin = f"{name}{ending}"
                twins[twin] = name
                steps = [_steps(link.stage, learned=link.lesson.train) for link in chain.links]
                gold = gold_alone(stages, steps=steps, data=data)
                alone = trainer.addressed(f"{twin}{number}", stages=gold, start=start, reader=reader)
                planned.setdefault(twin, []).append(alone)
    if general is not None:
        general.train()
    for name, chains in planned.items():
        _track(name, chains, settings=config.students[twins.get(name, name)], trainer=trainer)
    trained = {name: tuple(trainer.train(chain) for chain in chains) for name, chains in planned.items()}
    return TrainedStudents(trained, twins)


def _without_teacher(config: TaskDistillConfig, name: str) -> dict[str, tuple[str, ...]]:
    """What a student learns without a teacher to be compared with: sets of gold labels, by how it is called then."""
    evaluation, augmented = config.evaluation, config.augmented_gold(name)
    if not any(stage.is_taught for stage in config.students[name].stages):
        return {}
    found = {GOLD_ALONE: (GOLD,)} if evaluation.gold_baseline else {}
    return found | ({AUGMENTED_ALONE: (GOLD, *augmented)} if evaluation.augmented_baseline and augmented else {})


def _reader(student: TaskStudentConfig, start: MadeStart, *, trainer: TaskTrainer) -> Reader:
    longest = student.max_tokens or trainer.run.config.teacher.max_tokens
    return reader_of(start, max_tokens=longest)


def _steps(stage: TaskStageConfig, *, learned: Path) -> int:
    return task_steps(stage, examples=ExampleSet.load(learned))


def _track(name: str, chains: Sequence[TaskChain], *, settings: TaskStudentConfig, trainer: TaskTrainer) -> None:
    """Open the run of a student in the tracker, and say what is to be said about its data.

    Of several seeds each has a run of its own for its curve; that of the student holds what is found of all of them.
    """
    first = chains[0]
    for note in dict.fromkeys(note for link in first.links for note in link.lesson.notes):
        trainer.journal.console.say(f"{name}: {note}")
    params = flatten(settings.model_dump(mode="json", exclude_none=True))
    learned = first.links[0].lesson
    digests = [chain.digest for chain in chains]
    tags = {"role": "student", "method": first.method}
    dataset = " and ".join(first.links[0].stage.data), learned.train_digest
    whole = digests[0] if len(chains) == 1 else digest_of(seeds=digests)
    trainer.journal.tracker.child(name, params=params, tags={**tags, "student_digest": whole}, dataset=dataset)
    for chain in chains if len(chains) > 1 else ():
        seed = {"seed": chain.links[0].stage.seed}
        own = {"role": "seed", "method": first.method, "student": name, "student_digest": chain.digest}
        trainer.journal.tracker.child(chain.name, params=seed, tags=own, dataset=dataset)
