"""What goes into the training of one stage, and what comes out. All of it can be pickled to go between processes."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.identity import Identity
from configs.models import Device
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from configs.task import TaskKind
from configs.task_features import InsideSizes
from configs.task_stages import TaskStageConfig
from student_train.papers import Papers


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJob(ABC):
    """One stage of one student, whatever it learns.

    `model_dir` is where it starts, `output_dir` where the trained model appears (whole, or not at all), `work_dir`
    holds the checkpoints. Without `accelerator` a GPU is used where there is one. `teacher`, `licence`, `combined` (how
    several teachers are, in words) and `start` (what `model_dir` is, in words) go into the model card; `papers`
    are the licences of its teachers, which lie beside it.
    """

    stage: StageConfig | TaskStageConfig
    settings: TrainingSettings
    model_dir: Path
    work_dir: Path
    output_dir: Path
    accelerator: Device | None = None
    teacher: str = "unnamed"
    licence: str | None = None
    combined: str = ""
    start: str = "unnamed"
    papers: tuple[Papers, ...] = ()

    @abstractmethod
    def stage_digest(self) -> str:
        """SHA-256 (hex) of what decides how the training goes, apart from the data and the starting weights."""


@dataclass(frozen=True, slots=True)
class TaughtInside:
    """The teacher of a stage beside which it reads: where it lies, who it is, and its sizes.

    `identity` is the digest of its identity. `columns` of its logits are those of the task's decisions, in the task's
    order.
    """

    directory: Path
    identity: str
    dtype: str
    sizes: InsideSizes
    columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob(StageJob):
    """One stage of a language model, which learns from sequences of the cache.

    `vocab` is the number of tokens that exist (the tokenizer's length); further rows of the embedding are padding.
    `turns` is the file that says which rows of the train view an epoch reads (`student_train.feed.turns`).
    `plain_text` is the digest of what a stage with `pretrain` finds in `work_dir` (`student_train.feed.plain_text`).
    `taught` is the teacher of a stage beside which it reads.
    `retokenised` says that the views are files of `student_train.feed.retokenised`: the student has another tokenizer
    than the teacher, and `vocab` is that of its own.
    """

    stage: StageConfig
    cache_root: Path | str
    identity: Identity
    train_view: Path
    dev_view: Path | None
    vocab: int
    turns: Path | None = None
    plain_text: str | None = None
    taught: TaughtInside | None = None
    retokenised: bool = False

    def stage_digest(self) -> str:
        """See `StageJob.stage_digest`."""
        plain = {} if self.stage.pretrain is None else {"plain_text": self.plain_text}
        live = {} if self.taught is None else {"taught": self.taught.identity}
        return _digest({"stage": self.stage.identity(), "vocab": self.vocab, **plain, **live})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskJob(StageJob):
    """One stage of a student of a task, which learns from examples.

    `train_examples` and `dev_examples` are files (`student_train.feed.examples`) of a task of this `kind` with these
    `labels`. `sets` says for the model card how many examples of which set the former hold. `taught`
    is the teacher of a stage with features, or with a live one.
    """

    stage: TaskStageConfig
    train_examples: Path
    dev_examples: Path | None
    kind: TaskKind
    labels: tuple[str, ...]
    sets: Mapping[str, int] = field(default_factory=dict)
    taught: TaughtInside | None = None

    def stage_digest(self) -> str:
        """See `StageJob.stage_digest`."""
        inside = {} if self.taught is None else {"taught": self.taught.identity}
        return _digest({"stage": self.stage.identity(), "kind": self.kind, "labels": list(self.labels), **inside})


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralJob(TaskJob):
    """One general stage: examples are plain texts, their units tokens that may be hidden, and `labels` the vocabulary.

    They are those of a tagger, whose tags are the tokens themselves. `taught` is the teacher as it is before it is
    tuned, of a stage that reads it.
    """


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Metrics after `step` optimiser steps, by their tracking names.

    Losses are in nats a response token, or a decision of a task.
    """

    step: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a stage ended. `finished` is False when it was stopped; then there is a checkpoint and no model yet.

    `selected_step` is the step whose weights the student has, chosen as the stage's `select` says; None before the end.
    `dev_losses` are (step, held-out loss in nats a response token, or a decision); empty without a dev split.
    `begun_at` is when the first step, or what is measured before it, began (Unix time, in s): until then a stage only
    starts.
    """

    finished: bool
    output_dir: Path
    steps: int
    tokens: int
    skipped: int
    selected_step: int | None
    dev_losses: tuple[tuple[int, float], ...]
    begun_at: float = field(default=0.0, compare=False)


def _digest(said: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
