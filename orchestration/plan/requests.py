"""What an experiment asks of the teacher, and how much of it the cache already holds. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from cache import GenerateRequest, Missing, ScoreRequest
from cache.answers import Request
from configs import ConfigError
from configs.rollouts import RolloutConfig
from configs.schema import DistillConfig, GenerationConfig, StoredEncoding
from orchestration.inputs.prompts import Prompt

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
        generate = tuple(i for i, request in enumerate(requests) if isinstance(request, GenerateRequest))
        score = tuple((i, request) for i, request in enumerate(requests) if isinstance(request, ScoreRequest))
        return Missing(generate=generate, score=score)


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """The sequences of one source on one split, each with at least `k` log-probabilities (0: text alone).

    `encoding` is how new rows are stored; any stored row answers. Those of `left_out` are asked and not learned: a
    teacher that is mixed with this one could not answer them.
    """

    source: Source
    split: str
    requests: tuple[Request, ...]
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
    prompts: Mapping[str, tuple[Prompt, ...]],
    *,
    stop_ids: tuple[int, ...],
    plain: Mapping[str, tuple[Prompt, ...]] = MappingProxyType({}),
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
    given: dict[Source, Mapping[str, tuple[Prompt, ...]]] = {"gold": prompts, "plain": plain}
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
    if refused is not None:
        asked = [sequences.requests[at] for at in missing.generate] + [request for _, request in missing.score]
        reasons = {request: refused.reason(request) for request in asked}
        known = {request: reason for request, reason in reasons.items() if reason is not None}
        missing = Missing(
            generate=tuple(at for at in missing.generate if sequences.requests[at] not in known),
            score=tuple((at, request) for at, request in missing.score if request not in known),
        )
    generate = [sequences.requests[position] for position in missing.generate]
    prompt_tokens = sum(len(r.prompt_ids) for r in generate if isinstance(r, GenerateRequest))
    response_tokens = sum(r.max_new_tokens for r in generate if isinstance(r, GenerateRequest))
    prompt_tokens += sum(r.prompt_len for _, r in missing.score)
    response_tokens += sum(len(r.token_ids) - r.prompt_len for _, r in missing.score)
    return SetPlan(sequences, missing, prompt_tokens, response_tokens, known)


def _requests(
    source: str, prompts: Sequence[Prompt], generation: GenerationConfig, split: str, stop_ids: tuple[int, ...]
) -> tuple[Request, ...]:
    if source != "teacher":
        return tuple(_gold_request(prompt, split) for prompt in prompts)
    # Several samples a prompt are for training only; held-out prompts are answered once.
    samples = generation.samples_per_prompt if split == "train" else 1
    return tuple(
        GenerateRequest(
            prompt_ids=prompt.asked_ids,
            stop_ids=stop_ids,
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            top_p=generation.top_p,
            sampling_seed=generation.seed,
            replicate=replicate,
        )
        for prompt in prompts
        for replicate in range(samples)
    )


def _gold_request(prompt: Prompt, split: str) -> ScoreRequest:
    if prompt.gold_ids is None:
        raise ConfigError(
            f"data.{split} row {prompt.row} has no gold answer but a stage has source=gold: "
            "set data.response_field, or source: teacher"
        )
    return ScoreRequest(token_ids=prompt.asked_ids + prompt.gold_ids, prompt_len=len(prompt.asked_ids))
