"""Losses from hidden states and head in one pass, without a table of positions by vocabulary.

The positions are taken in chunks of rows; `student_train.losses.chunks` says how a chunk's logits become loss and
gradient. Gradients are computed in the forward pass, so the result is a *sum* over positions; the caller scales it as a
whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms
from student_train.losses.chunks import Chunking, exact_dtype, summed_loss
from student_train.losses.divergences import Measure, Tail
from student_train.losses.positions import LossForm, Positions
from student_train.losses.targets import SparseTargets

CPU_CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk's float32 logits on a CPU: past a few hundred rows larger chunks gain nothing there."""

LEAST_CHUNK_BYTES = 32 * 2**20
"""Below this, reading the head again for every chunk would take most of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class LossSums:
    """The loss summed over positions, with its graph, and the sums named by `measures.METRICS`, detached, float64."""

    loss: Float[Tensor, ""]
    metrics: Float[Tensor, " M"]


def fused_divergence(
    kind: str,
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    targets: SparseTargets | Float[Tensor, "N V"],
    *,
    labels: Int64[Tensor, " N"] | None = None,
    vocab: int | None = None,
    tail: Tail = "bucket",
    temperature: float = 1.0,
    weight: float = 1.0,
    ce_weight: float = 0.0,
    mask: Bool[Tensor, " N"] | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
    **parameters: float,
) -> LossSums:
    """`weight` x divergence from the teacher + `ce_weight` x cross-entropy on `labels`, summed over positions.

    The divergence is that of `student_train.losses.divergences.divergence` on the logits hidden @ head.T, of which
    columns from `vocab` on (by default none) do not exist: padding of the embedding. Models that squash their
    logits with tanh name the bound as `softcap`. `chunk_bytes` is the memory for a chunk's float32 logits, by
    default `chunk_budget`.

    Raises:
        ConfigError: as `divergence`, and a `ce_weight` without labels.
        ModelError: an id outside the student's vocabulary.
    """
    if ce_weight and labels is None:
        raise ConfigError(f"ce_weight={ce_weight:g} needs labels: give them or set ce_weight: 0")
    measure = Measure.of(kind, tail=tail, temperature=temperature, parameters=parameters)
    known = SparseTargets.whole(targets) if isinstance(targets, Tensor) else targets
    chunking = _chunking(hidden, head, vocab=vocab, softcap=softcap, chunk_bytes=chunk_bytes)
    return _apply(hidden, head, Positions(known, labels), LossForm(measure, weight, ce_weight), chunking, mask=mask)


def fused_cross_entropy(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    *,
    labels: Int64[Tensor, " N"],
    targets: SparseTargets | None = None,
    vocab: int | None = None,
    mask: Bool[Tensor, " N"] | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
) -> LossSums:
    """Cross-entropy on `labels`, summed over positions. `targets` are measured, not learned.

    Raises:
        ModelError: a label or an id outside the student's vocabulary.
    """
    chunking = _chunking(hidden, head, vocab=vocab, softcap=softcap, chunk_bytes=chunk_bytes)
    return _apply(hidden, head, Positions(targets, labels), LossForm(ce_weight=1.0), chunking, mask=mask)


def fused_policy(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    targets: SparseTargets,
    *,
    labels: Int64[Tensor, " N"],
    terms: PolicyTerms,
    policy: PolicyConfig,
    vocab: int | None = None,
    mask: Bool[Tensor, " N"] | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
) -> LossSums:
    """MiniLLM on sampled tokens, `labels`: policy term + `policy.single_step` x single-step term, summed.

    The policy term is that of `student_train.losses.minillm.policy_rows`, the other KL(student ‖ teacher) over the
    known tokens and the tail, times `terms.single_weights`.

    Raises:
        ConfigError: targets that were drawn.
        ModelError: a label or an id outside the student's vocabulary.
    """
    measure = Measure.of("reverse_kl", tail="bucket", temperature=1.0, parameters={})
    form = LossForm(measure, policy.single_step, policy=policy)
    chunking = _chunking(hidden, head, vocab=vocab, softcap=softcap, chunk_bytes=chunk_bytes)
    return _apply(hidden, head, Positions(targets, labels, terms), form, chunking, mask=mask)


@torch.no_grad()
def fused_logprobs(
    hidden: Float[Tensor, "N H"],
    head: Float[Tensor, "W H"],
    *,
    labels: Int64[Tensor, " N"],
    vocab: int | None = None,
    softcap: float | None = None,
    chunk_bytes: int | None = None,
) -> Float[Tensor, " N"]:
    """Log q(label) at each position, in nats and at least float32, without a gradient.

    Raises:
        ModelError: a label outside the student's vocabulary.
    """
    chunking = _chunking(hidden, head, vocab=vocab, softcap=softcap, chunk_bytes=chunk_bytes)
    Positions(None, labels).check_ids(vocab=chunking.vocab)
    found = torch.empty(len(hidden), dtype=exact_dtype(hidden), device=hidden.device)
    for chunk in chunking.chunks(len(hidden)):
        logits = chunking.raw_logits(hidden[chunk], head)
        if softcap is not None:
            logits = logits.div_(softcap).tanh_().mul_(softcap)
        found[chunk] = logits.gather(1, labels[chunk, None])[:, 0] - logits.logsumexp(dim=1)
    return found


def chunk_budget(device: torch.device) -> int:
    """Bytes for one chunk's float32 logits.

    On a GPU a 64th of its memory, which keeps its matrix products busy; where that is scarce an eighth of what is
    free, because a chunk needs up to three such tables at once (low-precision logits and gradient beside it). The
    share of the whole comes first so that the same run on the same kind of device adds up in the same order.
    """
    if device.type != "cuda":
        return CPU_CHUNK_BYTES
    free, total = torch.cuda.mem_get_info(device)
    # What torch holds in reserve counts as taken for the device, but is free here.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(LEAST_CHUNK_BYTES, min(total // 64, free // 8))


def _chunking(
    hidden: Tensor, head: Tensor, *, vocab: int | None, softcap: float | None, chunk_bytes: int | None
) -> Chunking:
    vocab = len(head) if vocab is None else vocab
    if not 0 < vocab <= len(head):
        raise ModelError(f"vocabulary of {vocab} tokens but the student's head has {len(head)} rows")
    chunk_bytes = chunk_budget(hidden.device) if chunk_bytes is None else chunk_bytes
    return Chunking(vocab, softcap, max(1, chunk_bytes // (4 * vocab)))


def _apply(
    hidden: Tensor, head: Tensor, positions: Positions, form: LossForm, chunking: Chunking, *, mask: Tensor | None
) -> LossSums:
    if mask is not None:
        hidden, positions = hidden[mask], positions[mask]
    positions.check_ids(vocab=chunking.vocab)
    if form.measure is not None and positions.targets is not None:
        form.measure.check(positions.targets, vocab=chunking.vocab)
    return LossSums(*summed_loss(hidden, head, positions, form, chunking))
