"""Answers of a model to the test prompts: their text, their length, how close their wording is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache.protocols import Failure
from configs import EngineError
from evaluation.closeness import joined
from evaluation.results import Closeness, ModelResults
from orchestration.cluster.engine_pool import AnsweringPool
from orchestration.comparison.bench import Bench, lengths
from orchestration.comparison.examination import Candidate
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.fields import to_fields

WARM_UP = 4
"""Test prompts that an engine answers before the others are timed."""


@dataclass(frozen=True, slots=True)
class WrittenAnswers:
    """What is kept: the answers in the order of the view, and how fast and on what the engine wrote them all at once.

    One measurement of answers as long as they happen to be is no model's speed: that is `SpeedExamination`'s to say.
    """

    answers: tuple[str, ...]
    answer_ids: tuple[tuple[int, ...], ...]
    answer_tokens: tuple[int, ...]
    wording: Closeness
    tokens_per_s: float
    measured_on: str
    digest: str


@dataclass(frozen=True, slots=True)
class Answering:
    """Has a model answer the test prompts."""

    bench: Bench
    artifacts: Artifacts

    @property
    def title(self) -> str:
        """See `Examination`."""
        return "answers"

    def address(self, candidate: Candidate) -> str:
        """See `Examination`; made of every model."""
        return self.bench.address(candidate, of="answers")

    def due(self, candidate: Candidate) -> bool:
        """See `Examination`."""
        return self._kept(candidate) is None

    def teacher_tokens(self) -> int:
        """See `Examination`: answers, and those of the warm-up."""
        answers = [len(request.prompt_ids) + request.max_new_tokens for request in self.bench.asked]
        return sum(answers) + sum(answers[:WARM_UP])

    def run(self, candidate: Candidate, pool: AnsweringPool) -> None:
        """See `Examination`.

        Raises:
            EngineError: no prompt was answered.
        """
        requests = self.bench.requests_of(candidate)
        pool.answer(requests[:WARM_UP], k=0)  # the first batch after a start takes seconds longer
        answers = pool.answer(requests, k=0)
        tokens = lengths(answers.outcomes)
        if sum(tokens) == 0:
            reasons = [o.reason for o in answers.outcomes if isinstance(o, Failure)]
            raise EngineError(f"{candidate.name} answered no test prompt: {reasons[0] if reasons else 'no prompts'}")
        kept = WrittenAnswers(
            answers=self.bench.texts(answers.outcomes, written_by=candidate),
            answer_ids=tuple(
                () if isinstance(o, Failure) else tuple(map(int, o.response_ids)) for o in answers.outcomes
            ),
            answer_tokens=tokens,
            wording=self.bench.wording(answers.outcomes, written_by=candidate),
            tokens_per_s=sum(tokens) / answers.seconds,
            measured_on=answers.measured_on,
            digest=self.address(candidate),
        )
        self.artifacts.write_evaluation(kept.digest, to_fields(kept))

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """See `Examination`."""
        kept = self._kept(candidate)
        if kept is None:
            return row
        return replace(
            row,
            answers=kept.answers,
            answer_tokens=kept.answer_tokens,
            closeness=joined(row.closeness, kept.wording),
        )

    def answer_ids(self, candidate: Candidate) -> tuple[tuple[int, ...], ...]:
        """The tokens of its answers in the order of the view, a failed one empty; nothing where it did not answer."""
        kept = self._kept(candidate)
        return () if kept is None else kept.answer_ids

    def _kept(self, candidate: Candidate) -> WrittenAnswers | None:
        return self.artifacts.read_evaluation(self.address(candidate), WrittenAnswers)
