"""How a task is put to a language model that the door serves: texts become the questions that a fill asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from cache import TeacherIdentity, TeacherRecord
from cache.canonical import canonical, token_bytes
from configs import ConfigError, DataError
from configs.task import SECOND
from evaluation.tasks.examples import read_examples
from evaluation.tasks.templates import row_template
from orchestration.comparison.label_likelihood import class_logprobs, label_score
from orchestration.comparison.task_questions import Question
from orchestration.pipeline.tasks.generative_teacher import TaskQuestions
from teacher_server.http.signals.labels import LabelledText
from teacher_server.http.texts import TextError


@dataclass(frozen=True)
class LabelQuestions:
    """See `teacher_server.http.signals.labels.LabelReader`.

    `fields` are those of a row that a text, and the second one of a pair, stand in. `identity` is who gives the
    classes: the language model, the words of the labels, and what they are divided by.
    """

    questions: TaskQuestions
    fields: tuple[str, ...]
    content_free: tuple[LabelledText, ...]
    identity: TeacherIdentity
    longest_label: int

    @classmethod
    def of(cls, questions: TaskQuestions, *, identity: TeacherIdentity, key: str) -> LabelQuestions:
        """Those of a task whose teacher stands at `key`, and is `identity` by its weights.

        Raises:
            ConfigError: a question is made of more than a text, or the two of a pair.
        """
        fields = _fields(questions, key=key)
        free = tuple(_labelled(each) for each in questions.content_free()) if questions.settings.calibrated else ()
        (any_one,) = questions.of(questions.task.train[:1])
        digest = _digest(questions, free, adapter=identity.adapter_sha256)
        longest = max(map(len, any_one.label_ids), default=0)
        return cls(questions, fields, free, replace(identity, adapter_sha256=digest), longest)

    def question(self, text: str, pair: str | None) -> LabelledText:
        """See `LabelReader`."""
        given = (text,) if pair is None else (text, pair)
        if len(given) != len(self.fields):
            raise TextError(f"the task asks about {len(self.fields)} texts at once ({', '.join(self.fields)})")
        task = self.questions.task.config
        try:
            row = dict(zip(self.fields, given, strict=True))
            (example,) = read_examples(task, [(-1, row)], labelled=False).usable
        except DataError as error:
            raise TextError(str(error)) from error
        (question,) = self.questions.made_of([example])
        if question.refused is not None:
            raise TextError(question.refused)
        return _labelled(question)

    def logprobs(
        self, answers: Sequence[TeacherRecord], *, content_free: Sequence[Sequence[TeacherRecord]]
    ) -> Float32[np.ndarray, " C"]:
        """See `LabelReader`."""
        scores = np.array([self._scores(answers)])
        free = np.array([self._scores(each) for each in content_free]) if content_free else None
        values: Float32[np.ndarray, " C"] = class_logprobs(scores, content_free=free)[0].astype(np.float32)
        return values

    def _scores(self, records: Sequence[TeacherRecord]) -> list[float]:
        per_token = self.questions.scoring.per_token
        return [label_score(record, per_token=per_token) for record in records]


def _fields(questions: TaskQuestions, *, key: str) -> tuple[str, ...]:
    task = questions.task.config
    second = task.fields.get(SECOND)
    reads = row_template(task.template, task=task.name, key="template").reads
    first = [name for name in reads if name not in ("labels", second)]
    if len(first) != 1 or "row" in first:
        raise ConfigError(
            f"{key}.answers=labels at a door: the template of task {task.name} reads {', '.join(first)}, and who asks "
            "gives one text, or the two of a pair: name one field in it (and fields.second)"
        )
    return (*first, *(() if second is None else (second,)))


def _labelled(question: Question) -> LabelledText:
    ids = question.prompt_ids
    return LabelledText(ids, len(ids), label_ids=question.label_ids)


def _digest(questions: TaskQuestions, free: Sequence[LabelledText], *, adapter: str | None) -> str:
    """SHA-256 (hex) of what makes classes of a language model's rows; it stands where an adapter's would."""
    words = [part for pair in questions.task.config.verbalisers.items() for part in pair]
    asked = [token_bytes(ids) for each in free for ids in (each.token_ids, *each.label_ids)]
    said = canonical("stillroom/labels/1", adapter or "", int(questions.scoring.per_token), len(words), *words, *asked)
    return hashlib.sha256(said).hexdigest()
