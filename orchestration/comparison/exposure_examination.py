"""What its own beginnings cost a model: its answers and the teacher's, each under the eyes of both.

No engine serves it: the teacher has to say what it believes over the whole vocabulary, so both are read in a process of
their own once the model has answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache import ScoreRequest
from evaluation.results import Exposure, ModelResults
from orchestration.cluster.exposure_scoring import Answers
from orchestration.comparison.bench import Bench
from orchestration.comparison.examination import Candidate
from orchestration.comparison.written_answers import Answering
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.fields import to_fields

MEASURES = 1
"""Raised by hand when a release measures the same answers differently."""


@dataclass(frozen=True, slots=True)
class KeptExposure:
    """What is kept."""

    exposure: Exposure
    digest: str


@dataclass(frozen=True, slots=True)
class ExposureBias:
    """Reads a student's answers to the test prompts, and the teacher's. `teacher` is the digest of its identity."""

    bench: Bench
    artifacts: Artifacts
    teacher: str

    @property
    def title(self) -> str:
        """See `Finding`."""
        return "exposure"

    def address(self, candidate: Candidate) -> str | None:
        """See `Finding`; not made of the teacher, whose own beginnings are the teacher's, nor of other tokens."""
        if candidate.role == "teacher" or candidate.tokens is not None:
            return None
        return digest_of(
            of="exposure",
            model=candidate.digest,
            identity=candidate.identity.digest(),
            teacher=self.teacher,
            answers=self._answering.address(candidate),
            vocab=self.bench.tokenizer_of.vocab,
            measures=MEASURES,
        )

    def missing(self, candidate: Candidate) -> bool:
        """Whether a student was not read before."""
        return self.address(candidate) is not None and self._kept(candidate) is None

    def answers(self, candidate: Candidate) -> Answers | None:
        """What is to be read of a student, as far as both answers were allowed to go; None where it wrote nothing.

        A prompt to which one of them has no answer is left out.
        """
        written = self._answering.answer_ids(candidate)
        if not written:
            return None
        free, forced = [], []
        for request, own, record in zip(self.bench.requests, written, self.bench.references(), strict=True):
            theirs, prompt = tuple(map(int, record.response_ids)), request.prompt_ids
            if own and theirs:
                own, theirs = own[: self.bench.compared_tokens], theirs[: self.bench.compared_tokens]
                free.append(ScoreRequest((*prompt, *own), len(prompt)))
                forced.append(ScoreRequest((*prompt, *theirs), len(prompt)))
        if not free:
            return None
        return Answers(candidate.directory.resolve(), candidate.identity.dtype, tuple(free), tuple(forced))

    def keep(self, candidate: Candidate, exposure: Exposure) -> None:
        """Keep what a process of its own found of a student."""
        digest = self.address(candidate)
        assert digest is not None
        self.artifacts.write_evaluation(digest, to_fields(KeptExposure(exposure, digest)))

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """See `Finding`."""
        kept = self._kept(candidate)
        return row if kept is None else replace(row, exposure=kept.exposure)

    @property
    def _answering(self) -> Answering:
        return Answering(self.bench, self.artifacts)

    def _kept(self, candidate: Candidate) -> KeptExposure | None:
        digest = self.address(candidate)
        return None if digest is None else self.artifacts.read_evaluation(digest, KeptExposure)
