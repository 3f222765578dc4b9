"""Who is asked in an experiment that distils a task, and how: by a head, by the likelihood of labels, or in words."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from configs.doors import DoorConfig
from configs.models import Positive
from configs.schema import Dtype
from configs.task_general import require_of_task
from configs.task_stages import GOLD, TaskStageConfig
from configs.teachers import LicensedTeacher

SignalEncoding = Literal["signal-f32", "signal-f16", "signal-u8"]
"""How signals are stored: exact, or smaller."""


class TaskTeacherConfig(LicensedTeacher):
    """Who is asked, and how.

    `answers` says by what: the logits of a task `head`, the likelihood of each label's words (`labels`) or the text
    that it writes (`text`), read as the task says; `constrained` has its engine write nothing that cannot be read so.
    Texts are cut to `max_tokens`, and those that are cut are counted.
    With `calibrated` the likelihood of each label is divided by that of the same words after a question without
    content (Zhao et al. 2021, arXiv 2102.09690). `prepare` are stages that tune the teacher on gold labels before it
    is asked. `general` are stages before those in which it learns hidden tokens of plain text: a model without the head
    of a masked language model gets one. With `serve` it answers behind somebody else's door, whose teacher has to be
    this `model` (docs/decisions/0047-a-task-teacher-behind-a-door.md).
    """

    later_keys = (*LicensedTeacher.later_keys, "general", "serve")

    answers: Literal["head", "labels", "text"] = "head"
    dtype: Dtype = "float32"
    max_tokens: Positive = 128
    encoding: SignalEncoding = "signal-f32"
    calibrated: bool = False
    constrained: bool = True
    general: tuple[TaskStageConfig, ...] = ()
    prepare: tuple[TaskStageConfig, ...] = ()
    serve: DoorConfig | None = None

    @property
    def elsewhere(self) -> DoorConfig | None:
        """Where it answers, if no engine of this experiment does."""
        return self.serve

    @property
    def in_words_elsewhere(self) -> bool:
        """Whether it is a language model behind a door, of which no weights are needed here."""
        return self.serve is not None and self.answers != "head"

    @model_validator(mode="after")
    def _one_that_is_served(self) -> Self:
        if self.serve is not None and self.prepare:
            raise ValueError(
                f"prepare tunes the teacher here, and serve={self.serve.url} asks one that is tuned there: name the "
                "directory of the tuned one as model and remove prepare, or remove serve"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.calibrated and self.answers != "labels":
            raise ValueError(
                f"calibrated=true is about the likelihood of labels, not answers={self.answers}: remove one"
            )
        if not self.constrained and self.answers != "text":
            raise ValueError(f"constrained=false is about text that is written, not answers={self.answers}: remove one")
        for number, stage in enumerate(self.prepare):
            require_of_task(f"prepare.{number}", stage)
            if stage.is_taught or stage.data != (GOLD,):
                features = " with features" if stage.features else ""
                raise ValueError(
                    f"prepare.{number} has objective={stage.objective}{features} on data={list(stage.data)}: a teacher "
                    f"is prepared on gold labels alone, so set objective: hard_labels and data: [{GOLD}]"
                )
        if self.prepare and self.answers != "head":
            raise ValueError(
                f"prepare tunes a model with a task head, and answers={self.answers} has none: set answers: head, or "
                "tune the language model in an experiment of its own"
            )
        if self.general and not self.prepare:
            raise ValueError(
                "general leaves the teacher without a head for the task and prepare, which would train one, is empty: "
                "add a stage with objective: hard_labels to it, or remove general"
            )
        return self
