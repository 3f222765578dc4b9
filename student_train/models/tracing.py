"""What is inside a model while it reads: the states of its layers, and its attention scores before the softmax.

transformers hands out attention after the softmax, and with fast kernels not at all. Here its models compute attention
by a function of ours that notes the scores on their way (`recording`); it is theirs otherwise.

Shapes: B rows, T tokens, E texts (the first of the rows), N units (of a language model: response positions), C labels,
H width, A heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AttentionInterface, AttentionMaskInterface, AutoConfig
from transformers.masking_utils import eager_mask

from configs.errors import ModelError
from configs.task_features import Place
from student_train.feed.microbatch import MicroBatch
from student_train.feed.task_batch import TaskBatch

NOTED = "stillroom_noted"
"""What our attention is called among those of transformers."""

_WITH_SINKS = ("gpt_oss",)
"""Families whose softmax has a term of its own beside the scores."""

_NOTES: ContextVar[list[Tensor] | None] = ContextVar("attention scores", default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One forward pass: `logits` at the units, and of every layer the states [B, T, H], or [B, H] of whole texts.

    Layer 0 is what the embeddings give. `scores` [B, A, T, T] are those of each layer above, the lowest first; empty
    where the model does not note them (`note_attention`).
    """

    logits: Float[Tensor, "N C"]
    states: tuple[Tensor, ...]
    scores: tuple[Tensor, ...] = ()

    def state(self, layer: int, place: Place, batch: TaskBatch) -> Float[Tensor, "U H"]:
        """States in float32: of every text at one place, or of every token of every text."""
        states = self.states[layer].float()
        if states.ndim == 2:
            return states[: batch.texts]
        if place == "all":
            return states[batch.tokens]
        states, mask = states[: batch.texts], batch.attention_mask[: batch.texts]
        if place == "first":
            return states[:, 0]
        if place == "last":
            return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
        valid = mask.bool()[:, :, None]
        return torch.where(valid, states, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


@dataclass(frozen=True, slots=True, eq=False)
class DecoderTrace:
    """One forward pass of a language model: `hidden` are its last states, where they predict a response token.

    `states` [B, T, H] and `scores` as in `Trace`; empty where nothing but the last states was asked for.
    """

    hidden: Float[Tensor, "N H"]
    states: tuple[Tensor, ...] = ()
    scores: tuple[Tensor, ...] = ()

    def state(self, layer: int, place: Place, batch: MicroBatch) -> Float[Tensor, "N H"]:
        """States in float32 where they predict a response token."""
        assert place == "all"
        return self.states[layer].flatten(0, 1).index_select(0, batch.positions).float()


@contextmanager
def recording() -> Iterator[list[Tensor]]:
    """Note the scores of every attention that is computed within, in their order."""
    notes: list[Tensor] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def require_open_attention(model_dir: Path) -> None:
    """Refuse a model of transformers whose attention is code of its own, by its config.json alone.

    Raises:
        ModelError: it is.
    """
    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True)
    _require_open(MODEL_MAPPING[type(config)], config)


def note_attention(model: Any) -> None:
    """Let a model of transformers compute attention so that `recording` sees it.

    Raises:
        ModelError: its attention is code of its own.
    """
    _require_open(model, model.config)
    model.set_attn_implementation(NOTED)


def _require_open(model: Any, config: Any) -> None:
    bounded = getattr(config, "attn_logit_softcapping", None)
    if not model._can_set_attn_implementation() or bounded is not None or config.model_type in _WITH_SINKS:
        raise ModelError(
            f"{config.model_type} computes attention in a way of its own, which cannot be looked into: leave "
            "attention_mse out, or name another model (BERT, RoBERTa and Llama can)"
        )


def noted_attention(
    module: nn.Module,
    query: Float[Tensor, "B A T D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Float[Tensor, "B T A D"], None]:
    """Attention as transformers calls it: softmax(q k' scaling + mask) v. G heads of keys serve A heads of queries."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    notes = _NOTES.get()
    if notes is not None:
        # What a decoder's token cannot see has a score that nothing depends on.
        notes.append(scores.tril() if getattr(module, "is_causal", False) else scores)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NOTED, noted_attention)
AttentionMaskInterface.register(NOTED, eager_mask)
