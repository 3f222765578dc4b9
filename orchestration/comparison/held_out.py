"""What a model believes at the teacher's own answers, held against what the cache keeps of the teacher there.

A student needs no teacher for it: it is scored in a process of its own, on the rows of the view. The teacher's own row
is the noise floor: the live engine against the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache import ScoreRequest, TeacherRecord
from cache.records import tail_logmass
from configs import EngineError
from evaluation.closeness import TokenBeliefs, closeness_of, joined
from evaluation.results import Closeness, ModelResults
from orchestration.cluster.engine_pool import AnsweringPool
from orchestration.comparison.bench import MEASURES, Bench
from orchestration.comparison.examination import Candidate
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.fields import to_fields


@dataclass(frozen=True, slots=True)
class KeptCloseness:
    """What is kept, in the order of the view."""

    closeness: Closeness
    digest: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores a model on the teacher's answers to the test prompts."""

    bench: Bench
    artifacts: Artifacts

    @property
    def title(self) -> str:
        """See `Examination`."""
        return "held-out scoring"

    def address(self, candidate: Candidate) -> str | None:
        """See `Examination`; made of every model that has the teacher's tokens."""
        if candidate.tokens is not None:
            return None
        return digest_of(
            of="closeness",
            by="engine" if candidate.role == "teacher" else "forward pass",
            model=candidate.digest,
            dtype=candidate.identity.dtype,
            view=self.bench.view.digest,
            k=self.bench.top_k,
            vocab=self.bench.tokenizer_of.vocab,
            measures=MEASURES,
        )

    def due(self, candidate: Candidate) -> bool:
        """See `Examination`. Of a student it is `missing` or not, never due: no engine has to serve it."""
        return candidate.role == "teacher" and self.missing(candidate)

    def missing(self, candidate: Candidate) -> bool:
        """Whether a model was not scored before; one of another vocabulary cannot be."""
        return candidate.tokens is None and self._kept(candidate) is None

    def teacher_tokens(self) -> int:
        """See `Examination`."""
        return sum(len(record.token_ids) for record in self.bench.as_told())

    def run(self, candidate: Candidate, pool: AnsweringPool) -> None:
        """See `Examination`: the live teacher against its own cached answers.

        Raises:
            EngineError: it refuses one of them.
        """
        references = self.bench.as_told()
        live = rescored(references, pool=pool, k=self.bench.top_k)
        self.keep(candidate, closeness_of(map(shared_beliefs, references, live)))

    def keep(self, candidate: Candidate, closeness: Closeness) -> None:
        """Keep what a process of its own found."""
        digest = self.address(candidate)
        assert digest is not None
        self.artifacts.write_evaluation(digest, to_fields(KeptCloseness(closeness, digest)))

    def add(self, row: ModelResults, candidate: Candidate) -> ModelResults:
        """See `Examination`."""
        kept = self._kept(candidate)
        return row if kept is None else replace(row, closeness=joined(row.closeness, kept.closeness))

    def _kept(self, candidate: Candidate) -> KeptCloseness | None:
        digest = self.address(candidate)
        return None if digest is None else self.artifacts.read_evaluation(digest, KeptCloseness)


def rescored(records: Sequence[TeacherRecord], *, pool: AnsweringPool, k: int) -> list[TeacherRecord]:
    """What the model that `pool` serves says of these sequences, in their order.

    Raises:
        EngineError: it refuses one.
    """
    requests = [ScoreRequest(tuple(map(int, record.token_ids)), record.prompt_len) for record in records]
    found = []
    for at, outcome in enumerate(pool.answer(requests, k=k).outcomes):
        if not isinstance(outcome, TeacherRecord):
            raise EngineError(f"answer {at + 1} of {len(records)} cannot be scored: {outcome.reason}")
        found.append(outcome)
    return found


def shared_beliefs(cached: TeacherRecord, live: TeacherRecord) -> TokenBeliefs:
    """Two top-k rows of each position, compared on the ids that both hold; everything else is the bucket.

    An engine names only its own K best ids, so a cached id may be missing among them. Taking the ids of both sides
    keeps the comparison a coarsening of the true one, that is a lower bound.
    """
    assert cached.topk_ids is not None and live.topk_ids is not None
    assert cached.topk_logprobs is not None and live.topk_logprobs is not None and live.target_logprobs is not None
    order = np.argsort(live.topk_ids, axis=1)
    ids = np.take_along_axis(live.topk_ids, order, axis=1)
    logprobs = np.take_along_axis(live.topk_logprobs, order, axis=1)
    at = np.array(
        [np.searchsorted(row, wanted) for row, wanted in zip(ids, cached.topk_ids, strict=True)], dtype=np.int64
    ).reshape(cached.topk_ids.shape)
    at = np.minimum(at, ids.shape[1] - 1)
    shared = np.take_along_axis(ids, at, axis=1) == cached.topk_ids
    teacher = np.where(shared, cached.topk_logprobs, -np.inf).astype(np.float32)
    student = np.where(shared, np.take_along_axis(logprobs, at, axis=1), -np.inf).astype(np.float32)
    # The vocabulary is larger than K here; K = V has an empty tail and needs no bucket.
    full = np.isneginf(cached.tail_logmass).all() if cached.tail_logmass is not None else False
    vocab = cached.k if full else cached.k + 1
    return TokenBeliefs(
        teacher_topk=teacher,
        teacher_tail=tail_logmass(teacher, vocab=vocab),
        student_topk=student,
        student_tail=tail_logmass(student, vocab=vocab),
        student_target=live.target_logprobs,
        target_ids=cached.response_ids,
        teacher_ids=cached.topk_ids,
        own_ids=live.topk_ids,
        own_best=live.topk_logprobs[:, 0],
    )
