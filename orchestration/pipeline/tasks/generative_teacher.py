"""A language model as the teacher of a task: what it is asked about examples, and what its answers mean.

By `labels` it is asked how likely the words of each label are behind the question, by `text` for an answer, which is
read as the task says. Both are ordinary requests, so a second experiment on the same examples pays nothing. Nothing is
asked here: answers are read from the cache once a fill has put them there.

Shapes: E examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from cache import GenerateRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from configs import ConfigError, EngineError, ModelError
from configs.task import LabelScoring
from configs.task_teacher import TaskTeacherConfig
from evaluation.results import TaskExample
from evaluation.tasks.answer_grammar import GrammarOf, answer_grammar
from evaluation.tasks.examples import Example, content_free_examples
from evaluation.tasks.parsing import answer_reader
from evaluation.tasks.spans import read_span
from orchestration.comparison.label_likelihood import LABEL_LOGPROBS, class_logprobs, label_requests, label_score
from orchestration.comparison.task_questions import BY_TEMPLATE, Asking, Question, questions_for
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.task_examples import Beliefs, Said
from orchestration.inputs.task_texts import WHOLE
from orchestration.inputs.tasks import LoadedTask


@dataclass(frozen=True)
class TaskQuestions:
    """A task as a language model is asked it; each example becomes a question once.

    Raises, whatever asks:
        ModelError: the model has no chat template that can be used, and the task wants one.
    """

    files: ModelFiles
    task: LoadedTask
    settings: TaskTeacherConfig
    asking: Asking
    _known: dict[Example, Question] = field(default_factory=dict)

    @property
    def by_text(self) -> bool:
        """Whether it answers in text, and not by the likelihood of labels."""
        return self.settings.answers == "text"

    @property
    def scoring(self) -> LabelScoring:
        """How the words of labels are weighed."""
        return self.task.config.label_scoring or LabelScoring()

    @property
    def answered_by(self) -> str:
        """How it answers, for people."""
        if self.by_text:
            return "text, held to what can be read" if self.settings.constrained else "text"
        calibrated = ", calibrated" if self.settings.calibrated else ""
        return "label likelihood" + (" per token" if self.scoring.per_token else "") + calibrated

    @property
    def k(self) -> int:
        """Log-probabilities that each answer keeps a position."""
        return 0 if self.by_text else LABEL_LOGPROBS

    def of(self, examples: Sequence[Example]) -> list[Question]:
        """The examples as the model is asked them, in their order."""
        new = [each for each in dict.fromkeys(examples) if each not in self._known]
        if new:
            self._known.update(zip(new, self.made_of(new), strict=True))
        return [self._known[each] for each in examples]

    def made_of(self, examples: Sequence[Example]) -> tuple[Question, ...]:
        """As `of`, and nothing of it is remembered."""
        config = self.task.config.model_copy(update={"label_scoring": None if self.by_text else self.scoring})
        return questions_for(self.files, examples, task=replace(self.task, config=config), asking=self.asking)

    def require_distinct_labels(self, example: Example) -> None:
        """Refuse labels that the model cannot tell apart: whose words add the same tokens to a question, or none.

        Raises:
            ModelError: naming both.
        """
        (question,) = self.of([example])
        words = self.task.config.verbalisers
        seen: dict[tuple[int, ...], str] = {}
        for label, ids in zip(words, question.label_ids, strict=not self.by_text and question.refused is None):
            other = seen.setdefault(ids, label) if ids else label
            if other != label or not ids:
                made = f"the same tokens of label {other} ({words[other]!r}) and of" if ids else "nothing of"
                raise ModelError(
                    f"{self.files.label}: its tokenizer makes {made} label {label} ({words[label]!r}): give it other "
                    f"words in task {self.task.config.name}"
                )

    def content_free(self) -> list[Question]:
        """The questions without content.

        Raises:
            UnfitRowError: the template cannot be filled so.
        """
        return self.of(content_free_examples(self.task.config))

    def require_taken(self, example: Example) -> None:
        """Refuse an instruction that the model's chat template has no place for.

        Raises:
            ConfigError: naming both.
        """
        (question,) = self.of([example])
        context, refused = self.task.context, question.refused or ""
        if context is not None and context.system_prompt is not None and refused.startswith(BY_TEMPLATE):
            raise ConfigError(
                f"teacher_context.system_prompt is a message of the system, and {self.files.label} cannot be asked so "
                f"({refused}): remove it, put it into the template of task {self.task.config.name}, or name another "
                "teacher"
            )

    def is_too_long(self, question: Question) -> bool:
        """Whether a question is longer with the context of the teacher than the engine reads with an answer.

        Without a context the engine says so itself.
        """
        if self.task.context is None:
            return False
        # A score is read from one token more than the sequence has.
        longest = self.task.config.max_new_tokens if self.by_text else 1 + max(map(len, question.label_ids), default=0)
        return len(question.prompt_ids) + longest > self.asking.max_prompt_tokens

    def requests(self, question: Question) -> list[Request]:
        """What the model is asked for one question: a sequence a label, or an answer; nothing if it cannot be asked."""
        if question.refused is not None or self.is_too_long(question):
            return []
        if not self.by_text:
            return list(label_requests(question))
        longest = self.task.config.max_new_tokens
        grammar = self._grammar_of(question.example) if self.settings.constrained else ""
        return [GenerateRequest(question.prompt_ids, self.files.stop_ids, longest, grammar=grammar)]

    @cached_property
    def _grammar_of(self) -> GrammarOf:
        return answer_grammar(self.task.config)


@dataclass(frozen=True, slots=True)
class GenerativeTeacher:
    """A language model's answers about the examples of a task, as far as its cache holds them."""

    questions: TaskQuestions
    cache: TeacherCache

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None] | list[Said | None]:
        """What it believes of each example, or what it said; None where it did not answer, or cannot be read.

        Raises:
            EngineError: none of the questions without content was answered, and it is to be calibrated by them.
        """
        if self.questions.by_text:
            return [None if one.predicted is None else self._said(one.predicted) for one in self.answered(examples)]
        return [
            None if np.isnan(row).any() else Beliefs((WHOLE,), row[None].astype(np.float32))
            for row in self._logprobs(self.questions.of(examples))
        ]

    def answered(self, examples: Sequence[Example]) -> tuple[TaskExample, ...]:
        """The examples with its answers, as the comparison shows those of every model; it raises as `about`."""
        questions = self.questions.of(examples)
        return tuple(self._written(questions) if self.questions.by_text else self._believed(questions))

    def unanswered(self, examples: Sequence[Example]) -> int:
        """How many of these examples it did not answer."""
        return sum(not said or None in said for said in self._records(self.questions.of(examples)))

    def unread(self, examples: Sequence[Example]) -> int:
        """How many of the texts that it wrote about these examples cannot be read."""
        if not self.questions.by_text:
            return 0
        records = self._records(self.questions.of(examples))
        read = zip(records, self.answered(examples), strict=True)
        return sum(bool(said) and said[0] is not None and one.predicted is None for said, one in read)

    def _believed(self, questions: Sequence[Question]) -> list[TaskExample]:
        labels = list(self.questions.task.config.verbalisers)
        found = []
        for question, row in zip(questions, self._logprobs(questions), strict=True):
            if np.isnan(row).any():
                found.append(question.answered())
                continue
            best = int(row.argmax())
            found.append(question.answered(predicted=(labels[best],), confidence=float(np.exp(row[best]))))
        return found

    def _written(self, questions: Sequence[Question]) -> list[TaskExample]:
        read, tokenizer = answer_reader(self.questions.task.config), self.questions.files.tokenizer
        found = []
        for question, records in zip(questions, self._records(questions), strict=True):
            record = records[0] if records else None
            if record is None:
                found.append(question.answered())
                continue
            text = tokenizer.decode(record.response_ids, skip_special_tokens=True)
            cut = self.questions.settings.constrained and record.finish == "length"
            readable = self._before_cut(text) if cut else text
            predicted = None if cut and not readable else read(readable, question.example.tokens)
            found.append(question.answered(answer=text, predicted=predicted))
        return found

    def _before_cut(self, text: str) -> str:
        """What can be read of an answer that the limit cut off: whole lines of entities, else nothing.

        What is cut off may be another word of the row, or another answer.
        """
        return text.rpartition("\n")[0] if self.questions.task.config.kind == "tagging" else ""

    def _logprobs(self, questions: Sequence[Question]) -> Float64[np.ndarray, "E C"]:
        """Log-probabilities of the classes; NaN where a label was not scored."""
        free = None
        if self.questions.settings.calibrated:
            free = self._scores(self.questions.content_free())
            free = free[~np.isnan(free).any(axis=1)]
            if not len(free):
                raise EngineError(
                    "none of the questions without content was answered, by which teacher.calibrated=true divides: "
                    "set teacher.calibrated: false"
                )
        return class_logprobs(self._scores(questions), content_free=free)

    def _scores(self, questions: Sequence[Question]) -> Float64[np.ndarray, "E C"]:
        scores = np.full((len(questions), len(self.questions.task.config.verbalisers)), np.nan)
        per_token = self.questions.scoring.per_token
        for place, records in enumerate(self._records(questions)):
            if records:
                scores[place] = [label_score(record, per_token=per_token) for record in records]
        return scores

    def _records(self, questions: Sequence[Question]) -> list[list[TeacherRecord | None]]:
        """The answer to each request of each question; None where the cache has none."""
        asked = [self.questions.requests(question) for question in questions]
        k = self.questions.k
        keys = self.cache.lookup([request for requests in asked for request in requests], k=k)
        held = iter(self.cache.get_many([key for key in keys if key is not None], k=k))
        records = iter([None if key is None else next(held) for key in keys])
        return [[next(records) for _ in requests] for requests in asked]

    def _said(self, answer: tuple[str, ...]) -> Said:
        """What is learned of an answer: entities that stand nowhere in the row have no words to be learned from."""
        if self.questions.task.config.kind != "tagging":
            return Said(answer)
        return Said(tuple(entity for entity in answer if read_span(entity).placed))
