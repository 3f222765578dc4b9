"""From sampled sequences to what workers learn from: a pinned view of the cache, and what is known about each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64

from cache import CacheView
from cache.batches import permutation
from cache.canonical import canonical
from evaluation.sampled import sampled_reverse_kl
from orchestration.rollouts.mixture import Tally
from orchestration.rollouts.sequence import Sampled
from student_train.handoff.rollouts import Rollout


def chosen(
    total: int, *, number: int, count: int, seed: int, of: Literal["prompts", "teacher"] = "prompts"
) -> Int64[np.ndarray, " M"]:
    """Which `count` of `total` rollout `number` takes; every one has its turn before any comes twice.

    Prompts that the student is asked and the `teacher`'s own sequences come in orders that know nothing of each other.
    """
    first, last = number * count, (number + 1) * count
    rounds = range(first // total, (last - 1) // total + 1)
    orders = [permutation(total, name=canonical(f"stillroom/rollout-{of}/1", seed, each)) for each in rounds]
    skipped = rounds.start * total
    return np.concatenate(orders)[first - skipped : last - skipped]


def described(
    keys: Sequence[bytes],
    *,
    view: CacheView,
    sampled: Sequence[Sampled],
    number: int,
    version: int,
    metrics: Mapping[str, float],
) -> Rollout:
    """The rollout of the sequences `keys`, all rows of `view`. What is not in `sampled` is the teacher's own."""
    row_of = {key.tobytes(): row for row, key in enumerate(view.keys)}
    by_row = {row_of[each.record.key]: each for each in sampled}
    lengths = np.asarray(view.lengths) - np.asarray(view.prompt_len)
    sources, logprobs = [], []
    for row, length in enumerate(lengths.tolist()):
        own = by_row.get(row)
        sources.append(np.ones(length, dtype=bool) if own is None else own.sources)
        logprobs.append(np.full(length, np.nan, dtype=np.float32) if own is None else own.student_logprobs)
    return Rollout(
        number=number,
        version=version,
        view=view,
        samples=np.array([row_of[key] for key in keys], dtype=np.int64),
        drawn_by_teacher=np.concatenate(sources),
        engine_logprobs=np.concatenate(logprobs),
        metrics=metrics,
    )


def sampling_metrics(tally: Tally, *, written: int, sync_seconds: float) -> dict[str, float]:
    """What sampling a rollout of `written` response tokens took, by tracking names."""
    return {
        "rollout/tokens_per_s": written / max(tally.sampling_seconds, 1e-9),
        "rollout/scoring_passes": float(tally.scoring_passes),
        "rollout/rounds": float(tally.rounds),
        "rollout/student_drawn_tokens": float(tally.student_tokens),
        "rollout/teacher_drawn_tokens": float(tally.teacher_tokens),
        "rollout/scored_tokens": float(tally.scored_tokens),
        "rollout/recomputed_tokens": float(tally.recomputed_tokens),
        "rollout/sampling_s": tally.sampling_seconds,
        "rollout/scoring_s": tally.scoring_seconds,
        "rollout/sync_s": sync_seconds,
    }


def held_out_reverse_kl(answers: Sequence[Sampled]) -> dict[str, float]:
    """The reverse KL of the student alone on held-out prompts, by tracking names; nothing where none was answered."""
    pairs = [
        (each.student_logprobs, each.record.target_logprobs)
        for each in answers
        if each.record.target_logprobs is not None and each.record.response_len
    ]
    if not pairs:
        return {}
    found = sampled_reverse_kl(pairs)
    return {
        "rollout/dev_reverse_kl": found.a_token,
        "rollout/dev_reverse_kl_stderr": found.a_token_stderr,
        "rollout/dev_sequence_reverse_kl": found.a_sequence,
        "rollout/dev_sequence_reverse_kl_stderr": found.a_sequence_stderr,
        "rollout/dev_response_tokens": found.tokens,
    }
