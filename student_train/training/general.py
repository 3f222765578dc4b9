"""Learning plain text, before any task: hidden tokens, and what is inside a teacher that reads beside the student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cache.batches import Rows
from configs.errors import ModelError
from student_train.feed.examples import ExampleSet
from student_train.feed.hiding import Hiding
from student_train.feed.task_steps import TaskFeed, TaskStep, batches_an_epoch
from student_train.job import TaskJob
from student_train.models.decoder import TORCH_DTYPES
from student_train.models.general_module import GeneralModule
from student_train.models.general_student import GeneralStudent, GeneralTeacher, load_general_student
from student_train.models.inside import Inside
from student_train.models.task_student import TaskStudent
from student_train.models.task_tokenizer import load_task_tokenizer
from student_train.models.tracing import note_attention
from student_train.training.tasks import TaskLearner


class GeneralLearner(TaskLearner):
    """See `Learner`: steps are batches of texts, what is measured are hidden tokens of the held-out ones.

    Without hidden tokens texts are read as they stand, and everything that is learned is a feature.
    """

    def _loaded(self, job: TaskJob, *, longest: int) -> TaskStudent:
        guesses = job.stage.needs == "words"
        student = load_general_student(
            job.model_dir,
            dtype=TORCH_DTYPES[job.stage.dtype],
            head_seed=job.stage.seed if guesses else None,
        )
        if longest > student.max_tokens:
            raise ModelError(
                f"{job.model_dir}: reads {student.max_tokens} tokens at most and a text has {longest}: lower max_tokens"
            )
        if not guesses:
            # Nothing is learned by it, and what decays the weights of others would spoil it.
            for name, parameter in student.model.named_parameters():
                if student.in_head(name):
                    parameter.requires_grad = False
        self._hiding = hiding_of(load_task_tokenizer(job.model_dir), seed=job.stage.seed) if guesses else None
        return student

    def _wrapped(self, job: TaskJob, student: TaskStudent) -> GeneralModule:
        assert isinstance(student, GeneralStudent)
        stage, inside, teacher = job.stage, None, None
        if stage.reads_inside:
            assert job.taught is not None, "a stage that reads a teacher has none"
            taught = load_general_student(job.taught.directory, dtype=TORCH_DTYPES[job.taught.dtype])
            if any(term.reads_attention for term in stage.features):
                note_attention(student.model)
                note_attention(taught.model)
            if stage.features:
                inside = Inside(stage.features, student=student.sizes, teacher=taught.sizes, seed=stage.seed)
            teacher = GeneralTeacher(taught)
        return GeneralModule(student, stage=stage, vocab=len(job.labels), inside=inside, teacher=teacher)

    def _known(self, examples: ExampleSet) -> tuple[str, ...]:
        if self._hiding is None:
            return ("loss",)
        return ("loss", "ce", "accuracy", *(("divergence", "agreement") if self._stage.soft_weight else ()))

    def _fed(self, feed: TaskFeed, batches: Iterable[Rows], *, first: int, measured: bool) -> Iterator[TaskStep]:
        if self._hiding is None:
            yield from feed.steps(batches, measured=measured)
            return
        if measured:
            yield from replace(feed, hiding=self._hiding).steps(batches, measured=True)
            return
        each = batches_an_epoch(self._stage, examples=feed.examples)
        for number, rows in enumerate(batches, start=first):
            hiding = replace(self._hiding, epoch=number // each)
            yield from replace(feed, hiding=hiding).steps([rows])


def hiding_of(tokenizer: Any, *, seed: int) -> Hiding:
    """How a tokenizer hides tokens; none is replaced by a special one.

    Raises:
        ModelError: it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise ModelError("its tokenizer has no mask token, so nothing can be hidden: name a model like BERT")
    special = np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int64)
    return Hiding(int(tokenizer.mask_token_id), np.setdiff1d(np.arange(len(tokenizer)), special), seed)
