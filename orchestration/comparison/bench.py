"""The final comparison: teacher, untouched students and trained students on the test split.

Every result is an artifact addressed by the model and the test view, so a model that was evaluated once is not
evaluated again. The teacher's own row is the noise floor: the live engine against what the cache keeps of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import CacheView, GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.keys import generation_key
from cache.protocols import Failure
from cache.records import tail_logmass
from configs import EngineError
from evaluation import HeldOutMetrics, held_out_metrics, rouge_l
from evaluation.held_out import TokenBeliefs
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.examination import Candidate
from orchestration.comparison.report import Evaluated
from orchestration.inputs.models import ModelFiles
from orchestration.outputs.artifacts import Artifacts, digest_of

MEASURES = 2
"""Raised by hand when a release measures the same answers differently: words of every script, of equal length."""

WARM_UP = 4
"""Test prompts that an engine answers before its speed is measured."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every candidate is measured on.

    `compared_tokens` of an answer and of the teacher's are held against each other: one may have been allowed to go on
    where the other had to stop.
    """

    cache: TeacherCache
    view: CacheView
    requests: tuple[GenerateRequest, ...]
    tokenizer_of: ModelFiles
    top_k: int
    compared_tokens: int

    def digest(self, candidate: Candidate) -> str:
        """The address of a candidate's evaluation: the weights that are served, what they are asked, who reads it."""
        identity, asked = candidate.identity.digest(), hashlib.sha256()
        for request in self.requests:
            asked.update(generation_key(identity, request))
        return digest_of(
            model=candidate.digest,
            identity=identity,
            role=candidate.role,
            dtype=candidate.identity.dtype,
            view=self.view.digest,
            asked=asked.hexdigest(),
            max_new_tokens=[request.max_new_tokens for request in self.requests[:1]],
            tokenizer=_tokenizer_sha256(self.tokenizer_of.tokenizer),
            measures=MEASURES,
            compared=self.compared_tokens,
        )

    def texts(self, records: Sequence[TeacherRecord | Failure], *, at_most: int | None = None) -> tuple[str, ...]:
        """Answers, or their first `at_most` tokens, as text; a failed one is empty."""
        return tuple(
            ""
            if isinstance(r, Failure)
            else self.tokenizer_of.tokenizer.decode(r.response_ids[:at_most], skip_special_tokens=True)
            for r in records
        )

    def rouge_l(self, answers: Sequence[TeacherRecord | Failure]) -> float:
        """Mean Rouge-L of `answers` against the teacher's, both as far as both were allowed to go."""
        ours, theirs = (self.texts(each, at_most=self.compared_tokens) for each in (answers, self.references()))
        return rouge_l(ours, theirs)

    def references(self) -> list[TeacherRecord]:
        """The teacher's records, in the order of the view."""
        return [r for block in self.cache.iter_blocks(self.view, [np.arange(len(self.view))]) for r in block]


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of what turns ids into text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def finished(candidates: Sequence[Candidate], *, bench: Bench, artifacts: Artifacts) -> dict[str, Evaluated]:
    """Evaluations that exist already, by name."""
    found = {}
    for candidate in candidates:
        kept = artifacts.read_evaluation(bench.digest(candidate), Evaluated)
        if kept is not None:
            # The name may differ from the experiment that made it.
            found[candidate.name] = replace(kept, name=candidate.name)
    return found


def teacher_tokens(bench: Bench) -> int:
    """Teacher tokens that `evaluate_teacher` takes at most: answers, those of the warm-up, and scores."""
    answers = [len(request.prompt_ids) + request.max_new_tokens for request in bench.requests]
    return sum(answers) + sum(answers[:WARM_UP]) + sum(len(record.token_ids) for record in bench.references())


def evaluate_teacher(candidate: Candidate, *, bench: Bench, pool: EnginePool, artifacts: Artifacts) -> Evaluated:
    """Measure the live teacher against its own cached answers."""
    answers = _timed_answers(bench, pool=pool)
    references = bench.references()
    rescored = pool.answer(
        [ScoreRequest(tuple(map(int, r.token_ids)), r.prompt_len) for r in references], k=bench.top_k
    )
    beliefs = [
        shared_beliefs(cached, live)
        for cached, live in zip(references, rescored.outcomes, strict=True)
        if isinstance(live, TeacherRecord) and cached.response_len
    ]
    return _keep(candidate, held_out_metrics(beliefs), answers, bench=bench, artifacts=artifacts)


def evaluate_student(
    candidate: Candidate, metrics: HeldOutMetrics, *, bench: Bench, pool: EnginePool, artifacts: Artifacts
) -> Evaluated:
    """Let a student answer the test prompts and put that beside its held-out metrics."""
    pool.load(candidate.directory, candidate.identity)
    return _keep(candidate, metrics, _timed_answers(bench, pool=pool), bench=bench, artifacts=artifacts)


def _timed_answers(bench: Bench, *, pool: EnginePool) -> TimedAnswers:
    """Answers to the test prompts from a warm engine: the first batch after a start takes seconds longer."""
    pool.answer(bench.requests[:WARM_UP], k=0)
    return pool.answer(bench.requests, k=0)


def _keep(
    candidate: Candidate, metrics: HeldOutMetrics, answers: TimedAnswers, *, bench: Bench, artifacts: Artifacts
) -> Evaluated:
    texts = bench.texts(answers.outcomes)
    written = sum(o.response_len for o in answers.outcomes if isinstance(o, TeacherRecord))
    if written == 0:
        reasons = [o.reason for o in answers.outcomes if isinstance(o, Failure)]
        raise EngineError(f"{candidate.name} answered no test prompt: {reasons[0] if reasons else 'no prompts'}")
    evaluated = Evaluated(
        name=candidate.name,
        role=candidate.role,
        parameters=candidate.parameters,
        forward_kl=metrics.forward_kl,
        forward_kl_stderr=metrics.forward_kl_stderr,
        reverse_kl=metrics.reverse_kl,
        top1_agreement=metrics.top1_agreement,
        perplexity=metrics.perplexity,
        rouge_l=bench.rouge_l(answers.outcomes),
        tokens_per_s=written / answers.seconds,
        measured_on=answers.measured_on,
        answers=texts,
        digest=bench.digest(candidate),
    )
    fields = {name: value for name, value in asdict(evaluated).items() if name != "digest"}
    artifacts.write_evaluation(evaluated.digest, fields)
    return evaluated


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
    at = np.stack([np.searchsorted(row, wanted) for row, wanted in zip(ids, cached.topk_ids, strict=True)])
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
        top1_agrees=(cached.topk_ids[:, 0] == live.topk_ids[:, 0]).astype(np.int64),
    )
