"""What a student of a task takes from inside its teacher: out of the cache, or while the teacher reads beside it.

Hidden states at single positions come with the batch. For all others the teacher reads the batch too, frozen, in its
own dtype, and as one whole in every process: it is no part of the module that DeepSpeed wraps, so its weights are
neither cut into parts nor saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.task_features import FeatureTerm, Place
from student_train.feed.task_batch import TaskBatch
from student_train.job import TaughtInside
from student_train.models.decoder import TORCH_DTYPES
from student_train.models.inside import Inside
from student_train.models.task_model import load_task_student, stored_task
from student_train.models.task_student import TaskStudent
from student_train.models.task_transformer import TransformerStudent
from student_train.models.tracing import Trace, note_attention


class LiveTeacher:
    """A teacher that reads the batches of its student. It has no weights that learn, and no state that is saved."""

    def __init__(self, teacher: TaskStudent) -> None:
        self._teacher = teacher.eval().requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, model_dir: Path, *, dtype: str, student: TaskStudent, notes: bool) -> LiveTeacher:
        """The teacher of a directory; with `notes` its attention is looked into.

        Raises:
            ModelError: it does not load, or its attention cannot be looked into.
        """
        # Its head keeps its own labels, and without one any will do: only a stage with teacher=live reads it, and a
        # teacher that answers has one.
        try:
            kind, labels = stored_task(model_dir)
        except ModelError:
            kind, labels = student.kind, student.labels
        teacher = load_task_student(model_dir, kind=kind, labels=labels, dtype=TORCH_DTYPES[dtype], head_seed=0)
        if notes:
            _note(teacher)
        return cls(teacher)

    @torch.no_grad()
    def read(self, batch: TaskBatch) -> Trace:
        """What is inside it while it reads a batch."""
        return self._teacher.to(batch.input_ids.device).traced(batch)


@dataclass(frozen=True, slots=True)
class AnsweringTeacher:
    """A live teacher whose answers are learned, in place of those of the cache; `columns` bring them in order."""

    live: LiveTeacher
    columns: tuple[int, ...]

    def answered(self, batch: TaskBatch) -> tuple[TaskBatch, Trace]:
        """The batch with the teacher's logits at its units, and all that was inside the teacher meanwhile."""
        trace = self.live.read(batch)
        return replace(batch, teacher=trace.logits.float()[:, list(self.columns)]), trace


@dataclass(frozen=True, slots=True, eq=False)
class TaughtTrace:
    """The teacher's side of a batch: states of every token and attention as it reads, all others as the batch has."""

    live: Trace | None

    def state(self, layer: int, place: Place, batch: TaskBatch) -> Float[Tensor, "U H"]:
        """See `student_train.models.inside.Traced`."""
        if place != "all":
            return _kept(batch, layer, place)
        assert self.live is not None
        return self.live.state(layer, place, batch)

    @property
    def scores(self) -> Sequence[Tensor]:
        """See `student_train.models.inside.Traced`."""
        return () if self.live is None else self.live.scores


class TaskInside(Inside):
    """The terms of one stage of a task, with the teacher that they are about."""

    def __init__(self, terms: Sequence[FeatureTerm], *, student: TaskStudent, taught: TaughtInside, seed: int) -> None:
        """Draw the projections with `seed`.

        Raises:
            ConfigError: layers, widths or heads that cannot be matched.
            ModelError: the teacher does not load, or attention cannot be looked into.
        """
        notes = any(term.reads_attention for term in terms)
        if notes:
            _note(student)
        super().__init__(terms, student=student.sizes, teacher=taught.sizes, seed=seed)
        self.live: LiveTeacher | None = None
        if any(not term.is_kept for term in terms):
            self.live = LiveTeacher.load(taught.directory, dtype=taught.dtype, student=student, notes=notes)

    def taught(self, batch: TaskBatch, *, read: Trace | None = None) -> TaughtTrace:
        """What the teacher shows of itself for this batch, which it may have `read` already."""
        if read is None and self.live is not None:
            read = self.live.read(batch)
        return TaughtTrace(read)


def _note(model: TaskStudent) -> None:
    if not isinstance(model, TransformerStudent):
        raise ConfigError("attention_mse needs attention on both sides, and one is a network without: remove the term")
    note_attention(model.model)


def _kept(batch: TaskBatch, layer: int, place: str) -> Float[Tensor, "E H"]:
    assert batch.states is not None
    at = [index for index, name in enumerate(batch.state_names) if name == (layer, place)]
    return batch.states[:, at[0]]
