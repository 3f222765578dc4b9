"""Students of a task as a chain of digests, as those of language models are (`orchestration.pipeline.chain`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.task import TaskKind
from configs.task_stages import GOLD, TaskStageConfig
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.pipeline.tasks.lessons import TaskLesson
from orchestration.pipeline.tasks.starts import MadeStart
from student_train.job import TaughtInside


@dataclass(frozen=True, slots=True)
class TaskLink:
    """One stage of one student: where it starts, where it ends, what it learns from; `origin` is its start in words.

    `digest` is that of `made_of`.
    """

    stage: TaskStageConfig
    digest: str
    start_dir: Path
    output_dir: Path
    work_dir: Path
    origin: str
    lesson: TaskLesson
    made_of: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskChain:
    """One training of a student through all its stages; `name` is the student's, with the seed where it has several."""

    name: str
    start: MadeStart
    links: tuple[TaskLink, ...]

    @property
    def digest(self) -> str:
        """What the trained student is addressed by."""
        return self.links[-1].digest

    @property
    def directory(self) -> Path:
        """The trained student."""
        return self.links[-1].output_dir

    @property
    def method(self) -> str:
        """The objectives of its stages, in their order, each once."""
        return ", ".join(dict.fromkeys(link.stage.objective for link in self.links))


def task_chain(
    name: str,
    *,
    stages: Sequence[TaskStageConfig],
    start: MadeStart,
    lesson: Callable[[TaskStageConfig], TaskLesson],
    kind: TaskKind,
    labels: Sequence[str],
    artifacts: Artifacts,
    taught: TaughtInside | None = None,
) -> TaskChain:
    """The links of one training, addressed but not made; `taught` is the teacher of stages that read it."""
    links: list[TaskLink] = []
    digest, directory, origin = start.digest, start.directory, start.origin
    for stage in stages:
        learned = lesson(stage)
        made_of: dict[str, object] = {
            "start": digest,
            "stage": stage.identity(),
            "kind": kind,
            "labels": list(labels),
            "train": learned.train_digest,
            "dev": learned.dev_digest,
            **({"taught": taught.identity} if stage.reads_teacher and taught is not None else {}),
        }
        digest = digest_of(**made_of)
        output = artifacts.student_dir(digest)
        links.append(TaskLink(stage, digest, directory, output, artifacts.work_dir(digest), origin, learned, made_of))
        directory, origin = output, f"{origin}; then {stage.objective}"
    return TaskChain(name, start, tuple(links))


def of_seed(stages: Sequence[TaskStageConfig], *, seed: int) -> tuple[TaskStageConfig, ...]:
    """The stages of the training number `seed` of a student: each with its own seed and that number more."""
    return tuple(stage.model_copy(update={"seed": stage.seed + seed}) for stage in stages)


def gold_alone(
    stages: Sequence[TaskStageConfig], *, steps: Sequence[int], data: tuple[str, ...] = (GOLD,)
) -> tuple[TaskStageConfig, ...]:
    """The same stages without a teacher: what distillation has to beat.

    Every stage learns gold labels of `data` for as many `steps` as the stage in its place, however many examples that
    has: it is chosen on dev as that one is, and gets no less time.
    """
    gold = {"objective": "hard_labels", "data": data, "labels": "gold", "temperature": 1.0, "gold_weight": 0.0}
    gold |= {"features": (), "views": None, "teacher": "cache"}
    return tuple(
        stage.model_copy(update=gold | {"steps": count, "epochs": None})
        for stage, count in zip(stages, steps, strict=True)
    )
