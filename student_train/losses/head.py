"""What turns hidden states into logits, and how many rows of logits exist at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import ModelError
from student_train.losses.passes import stays_low

CPU_CHUNK_BYTES = 256 * 2**20
"""Memory for one chunk's float32 logits on a CPU: past a few hundred rows larger chunks gain nothing there."""

LEAST_CHUNK_BYTES = 32 * 2**20
"""Below this, reading the head again for every chunk would take most of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The output matrix `weight`, and how it is used.

    Its first `vocab` rows, by default all, are tokens that exist; the others are padding of the embedding and have no
    probability. Models that squash their logits with tanh name the bound as `softcap`. `chunk_bytes` is the memory for
    one chunk's logits, by default `chunk_budget`.

    Raises:
        ModelError: `vocab` is more than the matrix has rows.
    """

    weight: Float[Tensor, "W H"]
    vocab: int | None = None
    softcap: float | None = None
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tokens <= len(self.weight):
            raise ModelError(f"vocabulary of {self.vocab} tokens but the student's head has {len(self.weight)} rows")

    @classmethod
    def of(cls, head: Head | Float[Tensor, "W H"]) -> Head:
        """A bare matrix as a head of all its rows."""
        return cls(head) if isinstance(head, Tensor) else head

    @property
    def tokens(self) -> int:
        """V, the tokens that have a probability."""
        return len(self.weight) if self.vocab is None else self.vocab

    def chunks(self, hidden: Float[Tensor, "N H"], *, tables: int = 1) -> Iterator[slice]:
        """The positions, chunk by chunk; `tables` is how many times as much as usual lives beside a chunk's logits."""
        budget = chunk_budget(hidden.device) if self.chunk_bytes is None else self.chunk_bytes
        logit_bytes = hidden.element_size() if stays_low(hidden, softcap=self.softcap) else 4
        rows = max(1, budget // (logit_bytes * self.tokens * tables))
        return (slice(start, start + rows) for start in range(0, len(hidden), rows))

    def raw_logits(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
        """The logits of a chunk before they are squashed, in the dtype that `student_train.losses.passes` takes."""
        logits = hidden @ self.weight[: self.tokens].T
        return logits if stays_low(hidden, softcap=self.softcap) else logits.to(exact_dtype(hidden))


def exact_dtype(hidden: Tensor) -> torch.dtype:
    """What losses are computed in: float32, or float64 where the states are."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def chunk_budget(device: torch.device) -> int:
    """Bytes for one chunk's logits: float32 or, where GPU kernels read them, as the product left them.

    On a GPU a 64th of its memory, which keeps its matrix products busy; where that is scarce an eighth of what is
    free, because without the kernels a chunk needs up to three such tables at once (low-precision logits and gradient
    beside it). The share of the whole comes first so that the same run on the same kind of device adds up in the same
    order.
    """
    if device.type != "cuda":
        return CPU_CHUNK_BYTES
    free, total = torch.cuda.mem_get_info(device)
    # What torch holds in reserve counts as taken for the device, but is free here.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(LEAST_CHUNK_BYTES, min(total // 64, free // 8))
