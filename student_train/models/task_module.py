"""A student of a task as the training engine sees it: network and loss in one module, and what of it learns."""

from __future__ import annotations

from torch import Tensor, nn

from configs.errors import ConfigError
from configs.task_stages import TaskStageConfig
from student_train.feed.task_batch import TaskBatch
from student_train.models.adapters import attach_adapters
from student_train.models.inside import with_terms
from student_train.models.task_inside import AnsweringTeacher, TaskInside
from student_train.models.task_model import TaskStudent


class TaskModule(nn.Module):
    """Student and loss as one module, which is what DeepSpeed wraps.

    Parts of which nothing learns stay in evaluation mode while the others train. Dropout keeps weights that learn from
    relying on each other; before frozen ones it would only blur what they say, and the head would learn from states
    that the exported student never computes.
    """

    def __init__(
        self,
        student: TaskStudent,
        *,
        stage: TaskStageConfig,
        inside: TaskInside | None = None,
        answering: AnsweringTeacher | None = None,
    ) -> None:
        """`answering` is the teacher of a stage that asks it in every step."""
        super().__init__()
        self.student, self.inside = student, inside
        self._answering = answering
        self._stage, self._loss = stage, stage.method.loss
        self._frozen = [] if stage.lora is not None else frozen_parts(student)

    def forward(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Summed loss and metric sums of the batch. An empty batch gives zero and zero gradients everywhere."""
        taught = None
        if self._answering is not None:
            batch, taught = self._answering.answered(batch)
        if self.inside is None:
            sums = self._loss(self.student.unit_logits(batch), batch, self._stage)
            return sums.loss, sums.metrics
        trace = self.student.traced(batch)
        sums = self._loss(trace.logits, batch, self._stage)
        loss, terms = self.inside(trace, self.inside.taught(batch, read=taught), batch)
        return sums.loss + loss, with_terms(sums.metrics, loss=loss, terms=terms)

    def train(self, mode: bool = True) -> TaskModule:  # noqa: FBT001, FBT002 - torch calls it so
        """See `nn.Module.train`."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self


def choose_what_learns(student: TaskStudent, *, stage: TaskStageConfig) -> None:
    """Freeze what a stage does not train, in place; with `lora` adapters learn, and the head, which has none.

    Raises:
        ConfigError: more layers are to learn than there are, or there is nothing to put an adapter around.
    """
    groups = student.groups()
    if stage.lora is not None:
        # A new head knows nothing yet: a matrix of low rank beside it could not teach it enough.
        attach_adapters(student, stage.lora, whole=groups[0])
        return
    if stage.unfrozen == "all":
        return
    if stage.unfrozen >= len(groups):
        raise ConfigError(
            f"unfrozen={stage.unfrozen} counts layers below the head and this student has {len(groups) - 1}, with its "
            "embeddings: lower it, or set unfrozen: all"
        )
    for group in groups[stage.unfrozen + 1 :]:
        for parameter in group:
            parameter.requires_grad = False


def frozen_parts(model: nn.Module) -> list[nn.Module]:
    """The outermost parts that have weights of which none learns."""
    weights = list(model.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        return [model]
    return [part for child in model.children() for part in frozen_parts(child)]
