"""What the teacher said, as tensors on the training device.

Shapes: N scored positions in a flat batch, K tokens kept a position, V vocabulary. Targets from the cache stay sparse:
nothing here or later has the size N x V on behalf of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from student_train.losses.head import Head

LIVE_TABLES = 4
"""How many times as much memory a chunk takes whose targets are whole distributions: beside the student's logits there
are those of the teacher, both as distributions, and what the divergence makes of them."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseTargets:
    """What the teacher believes about K tokens at each of N positions.

    `ids` are distinct within a row and lie in the vocabulary. *Scored* targets have `logprobs`, in nats, normalised
    over the teacher's whole vocabulary at temperature 1 (-inf is allowed), and `tail_logmass`, the log of the
    probability outside `ids`; -inf says that there is nothing outside (K = V).

    *Drawn* targets have `counts` instead: how often each id came up in as many draws a row from the whole
    distribution. An id with count 0 was not drawn and only fills the row up; it is any id that the row does not hold
    yet (`drawn` chooses it), so it indexes safely, weighs nothing and is never counted twice. `logprobs` of drawn ids
    are optional.

    Entries in `padding` of scored targets only fill a row up, as where a teacher's token is none of the student's: they
    have log-probability -inf, and what the student gives their ids belongs to its tail.

    `in_order` says that `ids` are all tokens there are, one after the other: a table of logits is then what it is, with
    nothing to look up in it and no rest.
    """

    ids: Int64[Tensor, "N K"]
    logprobs: Float[Tensor, "N K"] | None
    tail_logmass: Float[Tensor, " N"] | None
    counts: Int64[Tensor, "N K"] | None = None
    padding: Bool[Tensor, "N K"] | None = None
    in_order: bool = False

    def __post_init__(self) -> None:
        assert self.counts is not None or (self.logprobs is not None and self.tail_logmass is not None)

    @classmethod
    def whole(cls, logits: Float[Tensor, "N V"]) -> SparseTargets:
        """The whole distributions of a teacher whose logits are at hand: K = V, every id in order."""
        rows, vocab = logits.shape
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return cls(
            ids=torch.arange(vocab, device=logits.device).expand(rows, vocab),
            logprobs=exact.log_softmax(dim=1),
            tail_logmass=exact.new_full((rows,), float("-inf")),
            in_order=True,
        )

    @classmethod
    def drawn(cls, ids: Int64[Tensor, "N K"], counts: Int64[Tensor, "N K"]) -> SparseTargets:
        """Targets from draws as the cache keeps them, where id -1 with count 0 fills a row up."""
        return cls(_filled_up(ids), None, None, counts)

    @classmethod
    def padded(
        cls, ids: Int64[Tensor, "N K"], logprobs: Float[Tensor, "N K"], tail_logmass: Float[Tensor, " N"]
    ) -> SparseTargets:
        """Scored targets where id -1, with log-probability -inf, fills a row up."""
        padding = ids < 0
        return cls(_filled_up(ids), logprobs, tail_logmass, padding=padding)

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def k(self) -> int:
        """K, the number of tokens kept a position."""
        return int(self.ids.shape[1])

    def __getitem__(self, rows: slice | Bool[Tensor, " N"]) -> SparseTargets:
        """Some of the positions; a slice makes no copy."""
        return self._each(lambda part: part[rows])

    def to(self, device: torch.device) -> SparseTargets:
        """The same targets on another device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> SparseTargets:
        def changed(part: Tensor | None) -> Tensor | None:
            return None if part is None else change(part)

        return SparseTargets(
            change(self.ids),
            changed(self.logprobs),
            changed(self.tail_logmass),
            changed(self.counts),
            padding=changed(self.padding),
            in_order=self.in_order,
        )


@dataclass(frozen=True, slots=True, eq=False)
class LiveTargets:
    """A teacher at hand: its hidden states at N positions, and the head that makes distributions of them.

    Its width and its dtype are its own; its head is over as many tokens as the student's.
    """

    hidden: Float[Tensor, "N H"]
    head: Head

    def __getitem__(self, rows: slice | Bool[Tensor, " N"]) -> LiveTargets:
        return LiveTargets(self.hidden[rows], self.head)

    @torch.no_grad()
    def scored(self) -> SparseTargets:
        """What it believes about every token (K = V) at each position: to be asked for a chunk of them at a time."""
        logits = self.head.raw_logits(self.hidden)
        if self.head.softcap is not None:
            logits = logits.div_(self.head.softcap).tanh_().mul_(self.head.softcap)
        return SparseTargets.whole(logits)


def _filled_up(ids: Int64[Tensor, "N K"]) -> Int64[Tensor, "N K"]:
    """Each -1 becomes the smallest id that its row does not hold yet; among the first K ids there are always enough."""
    missing = ids < 0
    k = ids.shape[1]
    # One column more than K takes the ids that lie beyond and do not matter.
    taken = torch.zeros(len(ids), k + 1, dtype=torch.bool, device=ids.device)
    taken.scatter_(1, torch.where(missing, k, ids).clamp_max(k), value=True)
    free = taken[:, :k].byte().argsort(dim=1, stable=True)
    turn = (missing.cumsum(dim=1) - 1).clamp_min(0)
    return torch.where(missing, free.gather(1, turn), ids)
