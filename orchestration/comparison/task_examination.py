"""A task put to a generative model: it answers by text, or by the likelihood of each label's tokens.

What is found is kept of a model, a task, a split and the way of asking, whichever experiment wanted it. The dev split
gives `DevScores`, by which students may be chosen, and the test split `FinalScores`, which are reported; one is never
taken for the other, because a type checker refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from cache import GenerateRequest, ScoreRequest, TeacherRecord
from cache.protocols import Failure
from configs import EngineError, ModelError
from configs.model_files import speech_sha256
from evaluation.results import DevScores, FinalScores, ModelResults, TaskExample
from evaluation.tasks.examples import Example
from evaluation.tasks.parsing import answer_reader
from orchestration.cluster.engine_pool import AnsweringPool
from orchestration.comparison.examination import Candidate
from orchestration.comparison.label_likelihood import LABEL_LOGPROBS, class_logprobs, label_requests, label_score
from orchestration.comparison.task_questions import Asking, Question, questions_for
from orchestration.inputs.models import ModelFiles, open_model
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.fields import to_fields

MEASURES = 1
"""Raised by hand when a release asks the same questions, or reads the same answers, differently."""

Scores = TypeVar("Scores", DevScores, FinalScores)


@dataclass(frozen=True, slots=True)
class KeptScores:
    """What is kept of a model and a task."""

    task: str
    answered_by: str
    examples: tuple[TaskExample, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class TaskExamination(Generic[Scores]):
    """A task on one of its splits (`on_dev`, `on_test`). `teacher` counts what it costs where the teacher is asked."""

    task: LoadedTask
    asking: Asking
    artifacts: Artifacts
    kind: type[Scores]
    teacher: ModelFiles | None = None

    @property
    def title(self) -> str:
        """See `Examination`."""
        return f"task {self.task.config.name}" + (" on dev" if self.kind is DevScores else "")

    @property
    def answered_by(self) -> str:
        """How models answer."""
        scoring = self.task.config.label_scoring
        return "text" if scoring is None else "label likelihood" + (" per token" if scoring.per_token else "")

    @property
    def examples(self) -> tuple[Example, ...]:
        """What is asked."""
        return self.task.dev if self.kind is DevScores else self.task.test

    def address(self, candidate: Candidate) -> str:
        """See `Examination`; made of every model."""
        return digest_of(
            model=candidate.digest,
            identity=candidate.identity.digest(),
            speech=speech_sha256(candidate.directory),
            task=self.task.facts.digest,
            split="dev" if self.kind is DevScores else "test",
            asking=self.asking.fields(),
            measures=MEASURES,
        )

    def due(self, candidate: Candidate) -> bool:
        """See `Examination`."""
        return self.scores(candidate) is None

    def teacher_tokens(self) -> int:
        """See `Examination`."""
        if self.teacher is None:
            return 0
        asked = self._questions(self.teacher)
        if self.task.config.label_scoring is not None:
            return sum(len(one.prompt_ids) + len(ids) for one in asked for ids in one.label_ids)
        answers = len(self.asking.all_seeds)
        return sum(answers * (len(one.prompt_ids) + self.task.config.max_new_tokens) for one in asked)

    def longest(self, files: ModelFiles) -> int:
        """Tokens of the longest question with its answer; 0 where the model cannot be asked at all."""
        try:
            asked = self._questions(files)
        except ModelError:  # said by `run`
            return 0
        if self.task.config.label_scoring is None:
            return max((len(one.prompt_ids) + self.task.config.max_new_tokens for one in asked), default=0)
        # A score is read from one token more than the sequence has.
        return max((len(one.prompt_ids) + len(ids) + 1 for one in asked for ids in one.label_ids), default=0)

    def run(self, candidate: Candidate, pool: AnsweringPool) -> None:
        """See `Examination`.

        Raises:
            EngineError: no question was answered.
            ModelError: the model cannot be asked in this way.
        """
        files = open_model(candidate.directory, label=candidate.name)
        asked = self._questions(files)
        by_likelihood = self.task.config.label_scoring is not None
        examples = self._by_likelihood(asked, pool) if by_likelihood else self._by_text(asked, pool, files=files)
        kept = KeptScores(self.task.config.name, self.answered_by, examples, digest=self.address(candidate))
        self.artifacts.write_evaluation(kept.digest, to_fields(kept))

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """See `Examination`: scores of the test split are reported, those of dev are not."""
        scores = self.scores(candidate)
        return replace(row, tasks=(*row.tasks, scores)) if isinstance(scores, FinalScores) else row

    def scores(self, candidate: Candidate) -> Scores | None:
        """What is kept of a model; None where it was not asked yet."""
        kept = self.artifacts.read_evaluation(self.address(candidate), KeptScores)
        return None if kept is None else self.kind(kept.task, kept.answered_by, kept.examples)

    def _questions(self, files: ModelFiles) -> tuple[Question, ...]:
        return questions_for(files, self.examples, task=self.task, asking=self.asking)

    def _by_text(self, asked: Sequence[Question], pool: AnsweringPool, *, files: ModelFiles) -> tuple[TaskExample, ...]:
        config, asking, read = self.task.config, self.asking, answer_reader(self.task.config)
        stop_ids = files.stop_ids
        pairs = [(one, seed) for seed in asking.all_seeds for one in asked]
        requests = [
            GenerateRequest(
                one.prompt_ids,
                stop_ids,
                config.max_new_tokens,
                temperature=asking.temperature,
                top_p=asking.top_p,
                sampling_seed=seed,
            )
            for one, seed in pairs
            if one.refused is None
        ]
        outcomes = iter(_answers(pool, requests, k=0))
        found = []
        for one, seed in pairs:
            outcome = None if one.refused is not None else next(outcomes)
            if not isinstance(outcome, TeacherRecord):
                found.append(one.answered(seed=seed))
                continue
            answer = files.tokenizer.decode(outcome.response_ids, skip_special_tokens=True)
            found.append(one.answered(seed=seed, answer=answer, predicted=read(answer, one.example.tokens)))
        return tuple(found)

    def _by_likelihood(self, asked: Sequence[Question], pool: AnsweringPool) -> tuple[TaskExample, ...]:
        scoring, labels = self.task.config.label_scoring, list(self.task.config.verbalisers)
        assert scoring is not None
        requests = [request for each in asked for request in label_requests(each)]
        outcomes = iter(_answers(pool, requests, k=LABEL_LOGPROBS))
        found = []
        for one in asked:
            scores = np.array([label_score(next(outcomes), per_token=scoring.per_token) for _ in one.label_ids])
            if one.refused is not None or np.isnan(scores).any():
                found.append(one.answered(seed=self.asking.seed))
                continue
            beliefs = np.exp(class_logprobs(scores[None])[0])
            best = int(scores.argmax())
            found.append(
                one.answered(seed=self.asking.seed, predicted=(labels[best],), confidence=float(beliefs[best]))
            )
        return tuple(found)


def on_dev(
    task: LoadedTask, asking: Asking, *, artifacts: Artifacts, teacher: ModelFiles | None = None
) -> TaskExamination[DevScores]:
    """A task by which models are chosen."""
    return TaskExamination(task, asking, artifacts, DevScores, teacher)


def on_test(
    task: LoadedTask, asking: Asking, *, artifacts: Artifacts, teacher: ModelFiles | None = None
) -> TaskExamination[FinalScores]:
    """A task by which models are reported."""
    return TaskExamination(task, asking, artifacts, FinalScores, teacher)


def _answers(
    pool: AnsweringPool, requests: Sequence[GenerateRequest | ScoreRequest], *, k: int
) -> Sequence[TeacherRecord | Failure]:
    """Outcomes in the order of the requests.

    Raises:
        EngineError: not one of them is an answer.
    """
    outcomes = pool.answer(requests, k=k).outcomes
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, Failure)]
    if len(refused) == len(outcomes):
        raise EngineError(f"no question was answered: {refused[0] if refused else 'the chat template refuses them'}")
    return outcomes
