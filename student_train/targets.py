"""What the teacher said, as tensors on the training device.

Shapes: N scored positions in a flat batch, K top-k, V vocabulary. Targets stay sparse: nothing here or later has the
size N x V on behalf of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SparseTargets:
    """The teacher's K best tokens at N positions.

    `ids` are distinct within a row. `logprobs` are in nats, normalised over the teacher's whole vocabulary at
    temperature 1, and may hold -inf. `tail_logmass` is the log of the probability outside `ids`; -inf says that there
    is nothing outside (K = V). `counts` is for targets that were drawn by sampling, how often each id came up; the
    divergences refuse those.
    """

    ids: Int64[Tensor, "N K"]
    logprobs: Float[Tensor, "N K"]
    tail_logmass: Float[Tensor, " N"]
    counts: Int64[Tensor, "N K"] | None = None

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def k(self) -> int:
        """K, the number of tokens kept a position."""
        return int(self.ids.shape[1])

    def rows(self, start: int, stop: int) -> SparseTargets:
        """The positions from `start` to `stop`, without a copy."""
        counts = None if self.counts is None else self.counts[start:stop]
        return SparseTargets(self.ids[start:stop], self.logprobs[start:stop], self.tail_logmass[start:stop], counts)

    def to(self, device: torch.device) -> SparseTargets:
        """The same targets on another device."""
        counts = None if self.counts is None else self.counts.to(device)
        return SparseTargets(self.ids.to(device), self.logprobs.to(device), self.tail_logmass.to(device), counts)
