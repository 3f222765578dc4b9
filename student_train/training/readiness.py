"""Stages that cannot work are refused before their first step, in one line that names both sides.

Checked in the driver before workers start, and again by each worker, because a job may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cache.protocols import RecordReader
from cache.views import CacheView
from configs.architecture import read_architecture
from configs.divergences import AdaptiveDivergence
from configs.errors import ConfigError, DataError, ModelError
from configs.objectives import names_where
from configs.stages import StageConfig
from student_train.feed.steps import held_out_batches

TOKENS_PER_READ = 262_144


def require_ready(
    stage: StageConfig, *, view: CacheView, dev: CacheView | None, model_dir: Path, vocab: int, micro_batch_tokens: int
) -> None:
    """Refuse a stage whose data, model and settings do not go together.

    Raises:
        DataError: no sequence, or text alone where log-probabilities are needed.
        ConfigError: settings that the data cannot serve.
        ModelError: the student has too few tokens or positions.
    """
    views = (view,) if dev is None else (view, dev)
    for part in views:
        _require_rows(part, stage=stage)
    if stage.select == "dev_kl" and (dev is None or not (dev.k or stage.teacher == "live")):
        held = "there is no dev view" if dev is None else f"{dev.dataset} holds text alone"
        raise ConfigError(f"select=dev_kl needs log-probabilities of held-out sequences, but {held}: use dev_loss")
    if stage.temperature != 1.0 and stage.tail == "bucket" and stage.teacher == "cache" and view.k < vocab:
        raise ConfigError(
            f"temperature={stage.temperature:g} with tail=bucket needs the whole vocabulary of {vocab:,}, but "
            f"{view.dataset} keeps k={view.k}: set temperature: 1.0, tail: renormalize or teacher: live"
        )
    longest = max(int(part.lengths.max()) for part in views)
    if stage.rollout is not None:
        longest = max(longest, int(view.prompt_len.max()) + stage.rollout.max_new_tokens)
    if longest - 1 > micro_batch_tokens:
        raise ConfigError(
            f"the longest sequence has {longest:,} tokens but runtime.training.micro_batch_tokens is "
            f"{micro_batch_tokens:,}: raise it, or leave long sequences out with filters.max_tokens (of rollouts: with "
            "rollout.max_new_tokens)"
        )
    _require_model(model_dir, vocab=vocab, longest=longest)


def require_head_mass(stage: StageConfig, *, cache: RecordReader, view: CacheView) -> None:
    """Refuse adaptive KL where the kept tokens hold less than `mu`: its head would reach into the unknown tail.

    Raises:
        ConfigError: naming the worst position's mass and the cure.
    """
    if not isinstance(stage.divergence, AdaptiveDivergence) or stage.tail != "bucket" or stage.teacher == "live":
        return
    worst = min(float(-np.expm1(tails.max(initial=-np.inf))) for tails in _tails(cache, view=view))
    if worst < stage.divergence.mu:
        raise ConfigError(
            f"divergence=adaptive_kl with mu={stage.divergence.mu:g} needs that much mass in the kept tokens, but a "
            f"position of {view.dataset} has {worst:.3f} in its k={view.k}: lower mu, or raise teacher.top_k"
        )


def mean_tail_mass(cache: RecordReader, *, view: CacheView) -> float:
    """The teacher's probability outside the kept tokens, averaged over all response tokens of a view."""
    masses = np.concatenate([np.empty(0), *(np.exp(tails) for tails in _tails(cache, view=view))])
    return float(masses.mean()) if len(masses) else 0.0


def _tails(cache: RecordReader, *, view: CacheView) -> Iterator[Float64[np.ndarray, " n"]]:
    """The log-mass outside the kept tokens at all response tokens of a view, many rows at a time."""
    for records in cache.iter_blocks(view, held_out_batches(view, tokens=TOKENS_PER_READ)):
        tails = [record.tail_logmass for record in records if record.tail_logmass is not None]
        yield np.concatenate([np.empty(0), *tails], dtype=np.float64)


def _require_rows(view: CacheView, *, stage: StageConfig) -> None:
    if not len(view) or not view.response_tokens:
        raise DataError(f"{view.dataset} holds no response token for objective={stage.objective}: fill the cache first")
    if stage.needs_cached and not view.k:
        of_text = names_where(lambda other: other.learns_from(stage.source) and not other.needs_logprobs)
        raise DataError(
            f"objective={stage.objective} needs the teacher's log-probabilities but {view.dataset} holds text alone: "
            f"score it, or set objective: {of_text}"
        )


def _require_model(model_dir: Path, *, vocab: int, longest: int) -> None:
    shape = read_architecture(model_dir).shape
    tokens, positions = shape.vocab, shape.max_positions
    if tokens < vocab:
        raise ModelError(
            f"{model_dir} has {tokens:,} tokens but the teacher's tokenizer has {vocab:,}: resize its embedding first"
        )
    if longest > positions:
        raise ModelError(
            f"{model_dir} has {positions:,} positions but the longest sequence has {longest:,} tokens: lower "
            "generation.max_new_tokens, rollout.max_new_tokens or data.max_prompt_tokens, or choose another student"
        )
