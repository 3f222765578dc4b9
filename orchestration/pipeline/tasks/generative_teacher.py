"""What a language model says about the examples of a task, asked through the cache: beliefs by labels, or its word.

Everything that it is asked is an ordinary request, so a second experiment on the same examples pays nothing.

Shapes: E examples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64, Int32

from cache import GenerateRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from configs import ConfigError, EngineError
from configs.task import LabelScoring, TaskConfig
from evaluation.tasks.examples import Example, content_free_example
from evaluation.tasks.parsing import answer_reader
from evaluation.tasks.templates import UnfitRowError
from orchestration.comparison.label_likelihood import LABEL_LOGPROBS, class_logprobs, label_requests, label_score
from orchestration.comparison.task_questions import Asking, Question, questions_for
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.fill import Budgets, fill
from orchestration.fill.work import Engines
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_texts import WHOLE
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.console import ProgressSink
from orchestration.plan.requests import FillPlan, Refused, SequenceSet, plan_fill
from student_train.feed.examples import UNKNOWN

TASK = "task"
"""What its sequences are called in a plan."""

CERTAIN = 30.0
"""Nats between the logit of a label that was written and those of all others: a probability of 1 in float32."""


@dataclass(frozen=True, slots=True)
class GenerativeTeacher:
    """A language model with its cache, and how it is asked; engines are used only for what the cache lacks.

    `budgets` says what may still be spent at the time it is called.
    """

    files: ModelFiles
    cache: TeacherCache
    engines: Engines[Request]
    order: FillOrder
    budgets: Callable[[], Budgets]
    progress: ProgressSink
    refused: Refused | None = None

    def plan(self, requests: Sequence[Request], *, k: int) -> FillPlan:
        """What the cache lacks of some requests."""
        self.cache.refresh()
        encoding = self.order.encoding
        assert encoding in ("topk-u8", "topk-f16")
        part = SequenceSet("teacher", TASK, tuple(requests), k, encoding)
        return plan_fill([part], cache=self.cache, refused=self.refused)

    def ask(self, requests: Sequence[Request], *, k: int) -> list[TeacherRecord | str]:
        """The answer to each request, or in one line why there is none.

        Raises:
            BudgetReached: a budget ended the fill before all rows were there.
            EngineError: the engines kept dying.
        """
        plan = self.plan(requests, k=k)
        failed: Mapping[Request, str] = plan.refused
        if plan.misses:
            failed = fill(
                plan,
                cache=self.cache,
                engines=self.engines,
                order=self.order,
                budgets=self.budgets(),
                vocab=self.files.vocab,
                progress=self.progress,
            ).failed
            self.cache.refresh()
        keys = self.cache.lookup(requests, k=k)
        held = iter(self.cache.get_many([key for key in keys if key is not None], k=k))
        records = [None if key is None else next(held) for key in keys]
        return [
            failed.get(request, "it is not in the cache any more") if record is None else record
            for request, record in zip(requests, records, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class LabelBeliefs:
    """Log-probabilities of the classes of each example, in the order of the task's labels; NaN where there are none.

    `failed` says why, by the place of the example.
    """

    logprobs: Float64[np.ndarray, "E C"]
    failed: Mapping[int, str]

    def by_example(self) -> list[Beliefs | None]:
        """As students learn them: None for an example without."""
        return [
            None if at in self.failed else Beliefs((WHOLE,), row[None].astype(np.float32))
            for at, row in enumerate(self.logprobs)
        ]


@dataclass(frozen=True, slots=True)
class ParsedAnswers:
    """What was read from the answer to each example, as `Example.gold` has it; None where nothing was.

    `unread` answers could not be read; `failed` says why there is no answer, by the place of the example.
    """

    predicted: tuple[tuple[str, ...] | None, ...]
    unread: int
    failed: Mapping[int, str] = field(default_factory=dict)

    def labels(self, task: TaskConfig) -> Int32[np.ndarray, " E"]:
        """The label of each example of a classification, by its place; -1 where nothing was read."""
        places = {label: at for at, label in enumerate(task.verbalisers)}
        found = [UNKNOWN if answer is None else places[answer[0]] for answer in self.predicted]
        return np.array(found, dtype=np.int32)

    def by_example(self, task: TaskConfig) -> list[Beliefs | None]:
        """As students of a classification learn them: certain of the label that was read, None where none was."""
        rows = CERTAIN * np.eye(len(task.verbalisers), dtype=np.float32)
        return [None if at == UNKNOWN else Beliefs((WHOLE,), rows[[at]]) for at in self.labels(task).tolist()]

    def labelled(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The examples with what was read as their gold; those of which nothing was read are left out."""
        return tuple(
            replace(example, gold=answer, labelled=True)
            for example, answer in zip(examples, self.predicted, strict=True)
            if answer is not None
        )


@dataclass(frozen=True, slots=True)
class SpokenTeacher:
    """A language model as what a classification is learned from, by its beliefs or (`by_text`) by its word.

    `said` collects what is to be said about its answers, a line each.
    """

    teacher: GenerativeTeacher
    task: LoadedTask
    asking: Asking
    by_text: bool = False
    calibrated: bool = False
    said: list[str] = field(default_factory=list)

    def about(self, examples: Sequence[Example]) -> list[Beliefs | None]:
        """The beliefs about each example, in their order; asks for what the cache lacks.

        Raises:
            ConfigError: the task is not a classification, or has no question without content.
            ModelError: the model cannot be asked in this way.
            BudgetReached, EngineError: see `GenerativeTeacher.ask`.
        """
        if not self.by_text:
            return believed_labels(
                self.teacher, examples, task=self.task, asking=self.asking, calibrated=self.calibrated
            ).by_example()
        _require_classes(self.task.config, answers="text")
        answers = written_labels(self.teacher, examples, task=self.task, asking=self.asking)
        if answers.unread:
            self.said.append(f"{answers.unread:,} of {len(examples):,} answers of the teacher could not be read")
        return answers.by_example(self.task.config)


def believed_labels(
    teacher: GenerativeTeacher, examples: Sequence[Example], *, task: LoadedTask, asking: Asking, calibrated: bool
) -> LabelBeliefs:
    """What a teacher believes of the classes of examples, by the likelihood of the labels' words.

    Raises:
        ConfigError: the task is not a classification, or has no question without content.
        ModelError: the model cannot be asked in this way.
        BudgetReached, EngineError: see `GenerativeTeacher.ask`.
    """
    config = task.config
    _require_classes(config, answers="labels")
    scoring = config.label_scoring or LabelScoring()
    scored = replace(task, config=config.model_copy(update={"label_scoring": scoring}))
    asked = questions_for(
        teacher.files, [*examples, *(_without_content(config) if calibrated else ())], task=scored, asking=asking
    )
    questions, free = asked[: len(examples)], asked[len(examples) :]
    return beliefs_of(
        teacher,
        questions,
        classes=len(config.verbalisers),
        content_free=free[0] if free else None,
        per_token=scoring.per_token,
    )


def beliefs_of(
    teacher: GenerativeTeacher,
    questions: Sequence[Question],
    *,
    classes: int,
    content_free: Question | None,
    per_token: bool,
) -> LabelBeliefs:
    """Beliefs by the labels behind some questions, calibrated by one without content if there is one.

    A question has as many labels as there are classes, or none if it cannot be asked.

    Raises:
        EngineError: the question without content cannot be answered; see also `GenerativeTeacher.ask`.
    """
    asked = [*questions, *([] if content_free is None else [content_free])]
    requests = [request for question in asked for request in label_requests(question)]
    answers = iter(teacher.ask(requests, k=LABEL_LOGPROBS))
    scores = np.full((len(asked), classes), np.nan)
    failed: dict[int, str] = {}
    for place, question in enumerate(asked):
        if question.refused is not None:
            failed[place] = question.refused
            continue
        said = [next(answers) for _ in question.label_ids]
        scores[place] = [label_score(each, per_token=per_token) for each in said]
        reason = next((each for each in said if isinstance(each, str)), None)
        if reason is not None:
            failed[place] = reason
    if content_free is None:
        return LabelBeliefs(class_logprobs(scores), failed)
    if len(questions) in failed:
        raise EngineError(
            f"the question without content cannot be answered ({failed[len(questions)]}): set teacher.calibrated: false"
        )
    return LabelBeliefs(class_logprobs(scores[:-1], content_free=scores[-1].tolist()), failed)


def written_labels(
    teacher: GenerativeTeacher, examples: Sequence[Example], *, task: LoadedTask, asking: Asking
) -> ParsedAnswers:
    """What a teacher writes about examples, read as the task says.

    Raises:
        ModelError: the model cannot be asked in this way.
        BudgetReached, EngineError: see `GenerativeTeacher.ask`.
    """
    return answers_to(
        teacher,
        questions_for(teacher.files, examples, task=task, asking=asking),
        task=task.config,
        asking=asking,
    )


def answers_to(
    teacher: GenerativeTeacher, questions: Sequence[Question], *, task: TaskConfig, asking: Asking
) -> ParsedAnswers:
    """What a teacher writes when it is asked, and what is read from it."""
    read, tokenizer, stop_ids = answer_reader(task), teacher.files.tokenizer, teacher.files.stop_ids
    requests = [
        GenerateRequest(
            question.prompt_ids,
            stop_ids,
            task.max_new_tokens,
            temperature=asking.temperature,
            top_p=asking.top_p,
            sampling_seed=asking.seed,
        )
        for question in questions
        if question.refused is None
    ]
    answers = iter(teacher.ask(requests, k=0))
    predicted: list[tuple[str, ...] | None] = []
    failed: dict[int, str] = {}
    unread = 0
    for place, question in enumerate(questions):
        answer = question.refused if question.refused is not None else next(answers)
        if isinstance(answer, str):
            failed[place] = answer
            predicted.append(None)
            continue
        text = tokenizer.decode(answer.response_ids, skip_special_tokens=True)
        predicted.append(read(text, question.example.tokens))
        unread += predicted[-1] is None
    return ParsedAnswers(tuple(predicted), unread, failed)


def _require_classes(task: TaskConfig, *, answers: str) -> None:
    if task.kind != "classification":
        raise ConfigError(
            f"teacher.answers={answers} gives the class of a text, and task {task.name} is {task.kind}: set answers: "
            "head and name a model with a head for it"
        )


def _without_content(task: TaskConfig) -> list[Example]:
    try:
        return [content_free_example(task)]
    except UnfitRowError as error:
        raise ConfigError(
            f"teacher.calibrated=true needs a question without content, and the template of task {task.name} cannot be "
            f"filled with none ({error}): set calibrated: false"
        ) from error
