"""What an experiment asks of the teacher, and how much of it the cache already holds. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np

from cache import GenerateRequest, Missing, ScoreRequest
from cache.answers import Request, Scores
from cache.rows import Places, SpilledRows, TakenRows
from configs import ConfigError
from configs.rollouts import RolloutConfig
from configs.schema import DistillConfig, GenerationConfig, StoredEncoding
from orchestration.inputs.prompts import Prompt
from orchestration.plan.asked_rows import AskedRows

Source = Literal["teacher", "gold", "plain"]

BYTES_PER_ROW = 14.0
"""Stored bytes of one response position besides its top-k entries (token, target, tail, offsets)."""

BYTES_PER_ENTRY = {"topk-u8": 2.2, "topk-f16": 3.9}
"""Stored bytes of one (id, log-probability) pair by encoding; measured, see docs/log.md."""


class Holdings(Protocol):
    """The one question the plan asks of a cache."""

    def missing(self, requests: Sequence[Request], *, k: int) -> Missing:
        """Which of `requests` the cache cannot answer with at least `k` log-probabilities."""
        ...


class Refused(Protocol):
    """What the teacher is not asked: it cannot answer it, or it was forgotten (`orchestration.fill.refusals`)."""

    def reason(self, request: Request) -> str | None:
        """Why it is not asked; None where it is."""
        ...


class NothingHeld:
    """Stands for the cache of a teacher whose weights are not at hand: every row counts as a miss."""

    def missing(self, requests: Sequence[Request], *, k: int) -> Missing:
        """All of them."""
        written = np.fromiter((isinstance(each, GenerateRequest) for each in requests), dtype=bool, count=len(requests))
        at = np.flatnonzero(~written)
        return Missing(
            Places(np.flatnonzero(written)), Scores(requests, at=at, texts=SpilledRows(), texts_at=np.full(len(at), -1))
        )


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """The sequences of one source on one split, each with at least `k` log-probabilities (0: text alone).

    `encoding` is how new rows are stored; any stored row answers. Those of `left_out` are asked and not learned: a
    teacher that is mixed with this one could not answer them.
    """

    source: Source
    split: str
    requests: Sequence[Request]
    k: int
    encoding: StoredEncoding = "topk-u8"
    left_out: frozenset[Request] = frozenset()

    @property
    def name(self) -> str:
        """Stable name: source and split."""
        return f"{self.source}-{self.split}"


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Hits and misses of one sequence set, with the tokens that the misses would cost at most.

    `refused` are requests that the cache lacks and that were forgotten, or that the teacher could not answer before,
    with the reasons; they are not misses, because they are not asked.
    """

    sequences: SequenceSet
    missing: Missing
    prompt_tokens: int
    response_tokens: int
    refused: Mapping[Request, str] = field(default_factory=dict)

    @property
    def misses(self) -> int:
        """Rows that the teacher must be asked for."""
        return len(self.missing.generate) + len(self.missing.score)

    @property
    def hits(self) -> int:
        """Rows that the cache holds."""
        return len(self.sequences.requests) - self.misses - len(self.refused)

    @property
    def asks_teacher(self) -> bool:
        """Whether an engine is needed: storing a gold answer as text needs none."""
        return bool(self.missing.generate) or (self.sequences.k > 0 and bool(self.missing.score))


@dataclass(frozen=True, slots=True)
class FillPlan:
    """The plan of a fill."""

    sets: tuple[SetPlan, ...]

    @property
    def misses(self) -> int:
        """Rows over all sets that are not in the cache."""
        return sum(part.misses for part in self.sets)

    @property
    def refused(self) -> dict[Request, str]:
        """What the teacher is not asked, over all sets, and why."""
        return {request: reason for part in self.sets for request, reason in part.refused.items()}

    @property
    def asks_teacher(self) -> bool:
        """Whether any set needs an engine."""
        return any(part.asks_teacher for part in self.sets)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens that the teacher would read."""
        return sum(part.prompt_tokens for part in self.sets if part.asks_teacher)

    @property
    def response_tokens(self) -> int:
        """Response tokens that the teacher would write or score, at most."""
        return sum(part.response_tokens for part in self.sets if part.asks_teacher)

    @property
    def stored_bytes(self) -> int:
        """Expected size of the new segments, at most."""
        return sum(
            int(part.response_tokens * _row_bytes(part.sequences) + 4 * part.prompt_tokens) for part in self.sets
        )


def sequence_sets(
    config: DistillConfig,
    prompts: Mapping[str, Sequence[Prompt]],
    *,
    stop_ids: tuple[int, ...],
    plain: Mapping[str, Sequence[Prompt]] = MappingProxyType({}),
    assistant: str | None = None,
) -> tuple[SequenceSet, ...]:
    """Every sequence set that the students of the teacher need, or those that `assistant` teaches.

    `plain` are the windows of plain text by split; without any, sets of it are left out. The test split is always the
    teacher's: it is what all students are compared with.
    """
    stages = config.stages_taught_by(assistant)
    sets: list[tuple[Source, str, int]] = []
    if any(stage.source == "teacher" for stage in stages):
        sets += [("teacher", split, config.teacher.top_k) for split in ("train", "dev")]
    given: dict[Source, Mapping[str, Sequence[Prompt]]] = {"gold": prompts, "plain": plain}
    for source, texts in given.items():
        # What nobody wrote for the prompt is scored where its scores are kept, and stored as text where they are not.
        k = config.teacher.top_k if any(s.source == source and s.needs_cached for s in stages) else 0
        if texts and any(stage.source == source for stage in stages):
            sets += [(source, split, k) for split in ("train", "dev")]
    if assistant is None:
        sets.append(("teacher", "test", config.teacher.top_k))
    return tuple(
        SequenceSet(
            source,
            split,
            _requests(source, given.get(source, prompts)[split], config.generation, split, stop_ids),
            k,
            config.teacher.encoding,
        )
        for source, split, k in sets
    )


def _row_bytes(sequences: SequenceSet) -> float:
    return BYTES_PER_ROW + BYTES_PER_ENTRY[sequences.encoding] * sequences.k


def plan_fill(sets: Sequence[SequenceSet], *, cache: Holdings, refused: Refused | None = None) -> FillPlan:
    """Ask the cache what is missing, set by set, and leave out what the teacher has refused before."""
    return FillPlan(tuple(_plan_set(each, cache.missing(each.requests, k=each.k), refused=refused) for each in sets))


def rollout_tokens(rollout: RolloutConfig, *, longest_prompt: int) -> int:
    """Teacher tokens of a stage's rollouts and of the held-out answers beside them, at most.

    Each sequence is read once to score it; drawing every token costs one token more.
    """
    written = max(1, round(rollout.share * rollout.prompts))
    drawn = written * rollout.max_new_tokens if rollout.alpha else 0
    scored = (written + rollout.dev_prompts) * (longest_prompt + rollout.max_new_tokens)
    return rollout.count * (drawn + scored)


def _plan_set(sequences: SequenceSet, missing: Missing, *, refused: Refused | None) -> SetPlan:
    known: dict[Request, str] = {}
    prompt_tokens = response_tokens = 0
    for request in _lacking(sequences, missing):
        reason = None if refused is None else refused.reason(request)
        if reason is not None:
            known[request] = reason
        elif isinstance(request, GenerateRequest):
            prompt_tokens += len(request.prompt_ids)
            response_tokens += request.max_new_tokens
        else:
            prompt_tokens += request.prompt_len
            response_tokens += len(request.token_ids) - request.prompt_len
    missing = _without(known, missing, sequences=sequences) if known else missing
    return SetPlan(sequences, missing, prompt_tokens, response_tokens, known)


def _lacking(sequences: SequenceSet, missing: Missing) -> Iterator[Request]:
    """What is missing, first what is to be written."""
    yield from TakenRows(sequences.requests, missing.written)
    yield from (request for _, request in missing.score)


def _without(known: Mapping[Request, str], missing: Missing, *, sequences: SequenceSet) -> Missing:
    """What is missing and not `known` to be refused."""
    written = TakenRows(sequences.requests, missing.written)
    asked = np.fromiter((request not in known for request in written), dtype=bool, count=len(written))
    scored = np.fromiter((request not in known for _, request in missing.score), dtype=bool, count=len(missing.score))
    return Missing(Places(missing.written[asked]), TakenRows(missing.score, np.flatnonzero(scored)))


def _requests(
    source: str, prompts: Sequence[Prompt], generation: GenerationConfig, split: str, stop_ids: tuple[int, ...]
) -> Sequence[Request]:
    if source != "teacher":
        for prompt in prompts:
            _gold_request(prompt, split)
        return AskedRows(prompts, lambda prompt, _: _gold_request(prompt, split))
    # Several samples a prompt are for training only; held-out prompts are answered once.
    samples = generation.samples_per_prompt if split == "train" else 1
    return AskedRows(prompts, partial(_teacher_request, generation=generation, stop_ids=stop_ids), samples=samples)


def _teacher_request(
    prompt: Prompt, replicate: int, *, generation: GenerationConfig, stop_ids: tuple[int, ...]
) -> GenerateRequest:
    return GenerateRequest(
        prompt_ids=prompt.asked_ids,
        stop_ids=stop_ids,
        max_new_tokens=generation.max_new_tokens,
        temperature=generation.temperature,
        top_p=generation.top_p,
        sampling_seed=generation.seed,
        replicate=replicate,
    )


def _gold_request(prompt: Prompt, split: str) -> ScoreRequest:
    if prompt.gold_ids is None:
        raise ConfigError(
            f"data.{split} row {prompt.row} has no gold answer but a stage has source=gold: "
            "set data.response_field, or source: teacher"
        )
    return ScoreRequest(token_ids=prompt.asked_ids + prompt.gold_ids, prompt_len=len(prompt.asked_ids))
