"""The loss of a position as a formula on what a chunk of logits leaves behind (`student_train.losses.fused`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from configs.errors import ModelError
from configs.rollouts import PolicyConfig
from student_train.losses.advantages import PolicyTerms
from student_train.losses.divergences import Measure
from student_train.losses.metrics import cross_entropy
from student_train.losses.minillm import policy_rows
from student_train.losses.targets import LIVE_TABLES, LiveTargets, SparseTargets


@dataclass(frozen=True, slots=True, eq=False)
class SpanTerms:
    """What a loss of whole stretches of tokens leaves to each of them: a share of the value, and its slope.

    `slopes` is the derivative of the loss by the log-probability of the position's label, `values` the loss of a
    stretch at one of its positions and 0 at the others.
    """

    values: Float[Tensor, " N"]
    slopes: Float[Tensor, " N"]

    def __getitem__(self, rows: slice | Tensor) -> SpanTerms:
        return SpanTerms(self.values[rows], self.slopes[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """What is known about each position besides its hidden state; targets or labels at least, labels beside terms.

    `live` takes the place of `targets` until a chunk of positions is looked at (`chunk`).
    """

    targets: SparseTargets | None
    labels: Int64[Tensor, " N"] | None
    terms: PolicyTerms | None = None
    live: LiveTargets | None = None
    spans: SpanTerms | None = None

    @property
    def ids(self) -> Int64[Tensor, "N K"]:
        """The ids whose logits are kept. Without targets the label takes their place: the rest is everything else."""
        if self.targets is not None:
            return self.targets.ids
        assert self.labels is not None
        return self.labels[:, None]

    def __getitem__(self, rows: slice | Tensor) -> Positions:
        return Positions(
            None if self.targets is None else self.targets[rows],
            None if self.labels is None else self.labels[rows],
            None if self.terms is None else self.terms[rows],
            None if self.live is None else self.live[rows],
            None if self.spans is None else self.spans[rows],
        )

    def chunk(self, rows: slice) -> Positions:
        """Some of the positions, with what a teacher at hand believes there."""
        found = self[rows]
        return found if found.live is None else replace(found, targets=found.live.scored(), live=None)

    @property
    def tables(self) -> int:
        """How many times as much memory as usual a chunk of them takes."""
        return 1 if self.live is None else LIVE_TABLES

    def check_ids(self, *, vocab: int) -> None:
        """One look at all ids: on a GPU this is the only time that the host waits for them.

        Raises:
            ModelError: an id outside the student's vocabulary.
        """
        # A teacher at hand knows every token, and no other.
        known = None if self.live is not None else self.ids
        parts = [torch.stack(torch.aminmax(ids)) for ids in (known, self.labels) if ids is not None and len(ids)]
        if not parts:
            return
        bounds = torch.stack(parts).tolist()
        least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
        if least < 0 or most >= vocab:
            worst = least if least < 0 else most
            raise ModelError(f"token id {worst} lies outside the student's vocabulary of {vocab}")


PositionLoss = Callable[[Positions, Tensor, Tensor, Tensor | None], dict[str, Tensor]]
"""The loss of N positions: from what is known about them, the logits [N, K] at `positions.ids`, the log-sum-exp [N] of
all other logits and the label's logit [N] (None without labels) to `loss` [N] and any of its parts that are measured,
by their names in `metrics.METRICS`. It is differentiated by autograd."""


@dataclass(frozen=True, slots=True)
class LossForm:
    """weight x divergence + ce_weight x cross-entropy + the policy term, each where its inputs are there.

    Where the tokens were sampled the divergence is the single-step term and each position has a weight of its own.
    """

    measure: Measure | None = None
    weight: float = 1.0
    ce_weight: float = 0.0
    policy: PolicyConfig | None = None

    def rows(
        self, positions: Positions, kept: Float[Tensor, "N K"], rest: Float[Tensor, " N"], label: Tensor | None
    ) -> dict[str, Float[Tensor, " N"]]:
        """The loss of each position and its parts, by their names in `metrics.METRICS`.

        `kept` are the logits at `positions.ids`, `rest` is the log-sum-exp of all others, `label` the label's logit.
        """
        parts: dict[str, Tensor] = {}
        loss, terms = torch.zeros_like(rest), positions.terms
        if self.measure is not None and positions.targets is not None:
            parts["divergence"] = self.measure.rows(positions.targets, kept, rest)
            weights = self.weight if terms is None else self.weight * terms.single_weights.to(rest.dtype)
            loss = loss + weights * parts["divergence"]
        if label is not None:
            whole = positions.targets is not None and positions.targets.in_order
            parts["ce"] = cross_entropy(kept, rest, label, whole=whole)
            loss = loss + self.ce_weight * parts["ce"] if self.ce_weight else loss
        if self.policy is not None and terms is not None:
            parts["policy"], parts["clipped"] = policy_rows(-parts["ce"], terms, policy=self.policy)
            loss = loss + parts["policy"]
        return {"loss": loss, **parts}
