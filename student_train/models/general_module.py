"""A student of plain text as the training engine sees it: encoder and loss in one module."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from configs.task_stages import TaskStageConfig
from student_train.feed.task_batch import TaskBatch
from student_train.losses.fused import LossSums
from student_train.losses.metrics import METRICS
from student_train.losses.words import Words
from student_train.models.general_student import Asked, GeneralStudent, GeneralTeacher
from student_train.models.inside import Inside, with_terms
from student_train.models.task_module import TaskModule


class GeneralModule(TaskModule):
    """Student and loss as one module, which is what DeepSpeed wraps.

    A `teacher` reads each batch once, for soft targets and for features. `vocab` is the number of tokens that exist.
    """

    def __init__(
        self,
        student: GeneralStudent,
        *,
        stage: TaskStageConfig,
        vocab: int,
        inside: Inside | None,
        teacher: GeneralTeacher | None,
    ) -> None:
        super().__init__(student, stage=stage)
        self.terms = inside
        self._general, self._vocab, self._teacher = student, vocab, teacher

    def forward(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Summed loss and metric sums of the batch. An empty batch gives zero and zero gradients everywhere."""
        taught, expected = None, None
        if self._teacher is not None:
            taught, expected = self._teacher.read(
                batch, vocab=self._vocab, words=self._stage.soft_weight > 0, inside=self.terms is not None
            )
        guesses = self._stage.needs == "words"
        asked = Asked(
            units=batch.units if guesses else batch.units[:0],
            vocab=self._vocab,
            loss=partial(self._learned, expected, batch) if guesses else None,
        )
        trace = self._general.read(batch, asked=asked, inside=self.terms is not None)
        loss = trace.logits.sum() if guesses else trace.logits.new_zeros((), dtype=torch.float32)
        metrics = asked.metrics
        if metrics is None:
            metrics = torch.zeros(len(METRICS), dtype=torch.float64, device=loss.device)
        if self.terms is None:
            return loss, metrics
        learned, terms = self.terms(trace, taught, batch)
        return loss + learned, with_terms(metrics, loss=learned, terms=terms)

    def _learned(self, expected: Words | None, batch: TaskBatch, words: Words) -> LossSums:
        sums: LossSums = self._stage.method.loss(words, expected, batch.gold, self._stage)
        return sums
