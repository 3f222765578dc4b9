"""The two passes over a chunk's logits: the sums of its rows, and the gradient in their place.

On a GPU the table stays in the low precision of the product that made it, and `student_train.losses.kernels` reads it
there. Everywhere else it is float32 (float64 where the states are), and torch's own functions follow one another: the
first pass leaves exp(logit - shift) in the table, which the second scales.
"""

from __future__ import annotations

import functools
import logging
import subprocess

import torch
from jaxtyping import Float
from torch import Tensor

logger = logging.getLogger(__name__)

_LOW = (torch.bfloat16, torch.float16)


def stays_low(hidden: Tensor, *, softcap: float | None) -> bool:
    """Whether the logits of these states stay in the states' own precision. A tanh bound would need a third pass."""
    return hidden.is_cuda and hidden.dtype in _LOW and softcap is None and _kernels_work(hidden.device)


def row_sums(table: Float[Tensor, "N V"]) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Of each row the largest logit, the shift (it, or 0 where the row is empty) and sum exp(logit - shift).

    A row is empty when it holds nothing but -inf.
    """
    if table.dtype in _LOW:
        # Imported late: Triton comes with torch for GPUs alone.
        from student_train.losses import kernels

        best, total = kernels.row_sums(table)
        return best, _shift(best), total
    best = table.amax(dim=1)
    shift = _shift(best)
    return best, shift, table.sub_(shift[:, None]).exp_().sum(dim=1)


def spread(table: Float[Tensor, "N V"], *, shift: Float[Tensor, " N"], share: Float[Tensor, " N"]) -> None:
    """Turn what `row_sums` left of each logit, in place, into share exp(logit - shift) of its row."""
    if table.dtype in _LOW:
        from student_train.losses import kernels

        kernels.spread(table, shift, share)
    else:
        table.mul_(share[:, None])


def _shift(best: Tensor) -> Tensor:
    # Rows without a rest (K = V) shift by zero, so that exp gives 0 and not NaN.
    return best.masked_fill(best == float("-inf"), 0.0)


@functools.cache
def _kernels_work(device: torch.device) -> bool:
    """Whether the kernels can be built here and sum up right; once a process, and a warning where not."""
    table = torch.linspace(-5, 5, 1000, device=device).bfloat16().expand(2, -1).contiguous()
    try:
        _, _, total = row_sums(table)
        _, _, expected = row_sums(table.float())
        apart = float((total - expected).abs().max() / expected.max())
        reason = None if apart < 1e-4 else f"its sums are off by {apart:.1e}"
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
    if reason is not None:
        logger.warning("losses go without their GPU kernels, which takes more memory and time: %s", reason)
    return reason is None
