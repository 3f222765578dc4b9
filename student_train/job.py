"""What goes into the training of one stage, and what comes out. All of it can be pickled to go between processes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from cache.identity import TeacherIdentity
from configs.models import Device
from configs.schema import TrainingSettings
from configs.stages import StageConfig


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One stage of one student.

    `model_dir` is where it starts, `output_dir` where the trained model appears (whole, or not at all), `work_dir`
    holds the checkpoints. `vocab` is the number of tokens that exist (the tokenizer's length); further rows of the
    embedding are padding. Without `accelerator` a GPU is used where there is one. `teacher`, `licence` and `start`
    (what `model_dir` is, in words) go into the model card.
    `plain_text` is the digest of what a stage with `pretrain` finds in `work_dir` (`student_train.feed.plain_text`).
    """

    stage: StageConfig
    settings: TrainingSettings
    model_dir: Path
    cache_root: Path | str
    identity: TeacherIdentity
    train_view: Path
    dev_view: Path | None
    work_dir: Path
    output_dir: Path
    vocab: int
    accelerator: Device | None = None
    teacher: str = "unnamed"
    licence: str | None = None
    start: str = "unnamed"
    plain_text: str | None = None

    def stage_digest(self) -> str:
        """SHA-256 (hex) of what decides how the training goes, apart from the data and the starting weights."""
        plain = {} if self.stage.pretrain is None else {"plain_text": self.plain_text}
        text = json.dumps({"stage": self.stage.identity(), "vocab": self.vocab, **plain}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Metrics after `step` optimiser steps, by their tracking names. Losses are in nats a response token."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a stage ended. `finished` is False when it was stopped; then there is a checkpoint and no model yet.

    `selected_step` is the step whose weights the student has, chosen as the stage's `select` says; None before the end.
    `dev_losses` are (step, held-out loss in nats a response token); empty without a dev view. `begun_at` is when the
    first step, or what is measured before it, began (Unix time, in s): until then a stage only starts.
    """

    finished: bool
    output_dir: Path
    steps: int
    tokens: int
    skipped: int
    selected_step: int | None
    dev_losses: tuple[tuple[int, float], ...]
    begun_at: float = field(default=0.0, compare=False)
