"""Universal logit distillation: distributions over different tokens, compared by rank (Boizard et al. 2024).

Both distributions are sorted and the i-th largest probabilities are held against each other: sum over i of
|p_(i) - q_(i)|, which is their Wasserstein distance where every token is as far from any other (arXiv 2402.12030).
What a token is called plays no part. Of the teacher K probabilities are known; what both leave beyond their K largest
is compared as one more rank.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from student_train.losses.divergences import fold, guarded_logsumexp
from student_train.losses.fused import LossSums, fused_loss
from student_train.losses.head import Head
from student_train.losses.positions import Positions
from student_train.losses.targets import SparseTargets


def ranked_distance(hidden: Float[Tensor, "N H"], head: Head, targets: SparseTargets) -> LossSums:
    """The sum over ranks of |p_(i) - q_(i)|, summed over positions; 0 to 2 a position.

    The ids of the scored `targets` mean nothing. Of the metrics only `loss` and `divergence` mean something.
    """
    ranked = _sorted(targets, most=head.tokens)
    own = SparseTargets(best_ids(hidden, head, k=ranked.k), ranked.logprobs, ranked.tail_logmass)
    return fused_loss(hidden, head, Positions(own, None), _rows)


@torch.no_grad()
def best_ids(hidden: Float[Tensor, "N H"], head: Head, *, k: int) -> Int64[Tensor, "N k"]:
    """The student's `k` most likely tokens at each position, the most likely first."""
    # A tanh bound changes no order.
    parts = [head.raw_logits(hidden[chunk]).topk(k, dim=1).indices for chunk in head.chunks(hidden)]
    return torch.cat(parts) if parts else torch.zeros(0, k, dtype=torch.int64, device=hidden.device)


def rank_gaps(targets: SparseTargets, kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The distance at each position: `kept` are the student's largest logits, `rest` the log-sum-exp of all others."""
    # Logits of a low precision may have been ranked apart from how they are read here.
    events = fold(targets, kept.sort(dim=1, descending=True).values, rest)
    return (events.teacher.exp() - events.student.exp()).abs().sum(dim=1)


def _rows(positions: Positions, kept: Tensor, rest: Tensor, label: Tensor | None) -> dict[str, Tensor]:
    assert positions.targets is not None
    apart = rank_gaps(positions.targets, kept, rest)
    return {"loss": apart, "divergence": apart}


def _sorted(targets: SparseTargets, *, most: int) -> SparseTargets:
    """The teacher's probabilities from the largest on, at most `most`; the others are with the tail."""
    assert targets.logprobs is not None and targets.tail_logmass is not None
    order = targets.logprobs.sort(dim=1, descending=True)
    beyond = torch.cat([order.values[:, most:], targets.tail_logmass[:, None]], dim=1)
    tail = targets.tail_logmass if targets.k <= most else guarded_logsumexp(beyond)
    return SparseTargets(order.indices[:, :most], order.values[:, :most], tail)
