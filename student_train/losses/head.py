"""What turns hidden states into logits."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What turns hidden states into logits.

    Of the output matrix the first `vocab` rows are tokens that exist; `softcap` bounds the logits by a tanh.
    """

    weight: Float[Tensor, "W H"]
    vocab: int
    softcap: float | None = None
