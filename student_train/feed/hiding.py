"""Which tokens of a text are hidden for a masked language model to guess, and what stands in their place.

As in BERT (Devlin et al. 2019, arXiv 1810.04805, section 3.1) 15 % of the tokens of a text, at least one, are guessed;
of these 80 % become the mask token, 10 % another token, and 10 % stay. Which ones is drawn anew in every epoch, as a
pure function of seed, epoch and example: not of the step, the process or the micro-batch that reads it. So a resumed
training hides the same tokens, however many processes it has, and student and teacher read the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from cache.batches import Rows
from cache.canonical import canonical
from student_train.feed.task_batch import TaskBatch

SHARE_PERCENT = 15
"""Of the tokens of a text: those that are guessed."""

MASKED, REPLACED = 0.8, 0.1
"""Of those that are guessed: those that become the mask token, and those that become another one."""

MEASURED = -1
"""The epoch of texts that are measured: the same tokens each time."""


@dataclass(frozen=True, slots=True, eq=False)
class Hiding:
    """How tokens are hidden: `mask` is the id of the mask token, `tokens` [K] are the ids that may replace another."""

    mask: int
    tokens: Int64[np.ndarray, " K"]
    seed: int
    epoch: int = MEASURED

    def hide(self, batch: TaskBatch, rows: Rows) -> TaskBatch:
        """A batch of these examples whose units are the hidden tokens alone, `gold` what stood there."""
        ids = batch.input_ids.clone()
        flat, counts = ids.view(-1), np.bincount(batch.owner.numpy(), minlength=len(rows))
        first, chosen = 0, []
        for row, count in zip(rows, counts[: len(rows)], strict=True):
            picked, fates, lots = self._drawn(int(row), units=int(count))
            places = batch.units[first + picked]
            flat[places[fates < MASKED]] = self.mask
            other = (fates >= MASKED) & (fates < MASKED + REPLACED)
            flat[places[other]] = torch.from_numpy(self.tokens[(lots[other] * len(self.tokens)).astype(np.int64)])
            chosen.append(first + picked)
            first += int(count)
        kept = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *chosen]))
        return replace(batch, input_ids=ids, units=batch.units[kept], owner=batch.owner[kept], gold=batch.gold[kept])

    def _drawn(self, row: int, *, units: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The places of the hidden units of an example, ascending, with two numbers in [0, 1) for each."""
        name = canonical("stillroom/hiding/1", self.seed, self.epoch, row)
        draw = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name).digest()[:16], "big")))
        count = int(hidden_counts(np.array([units]))[0])
        picked = np.sort(np.argsort(draw.random(units), kind="stable")[:count])
        return picked, draw.random(count), draw.random(count)


def hidden_counts(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens are hidden of texts that have so many: 15 % rounded half up, at least one of any."""
    rounded: NDArray[np.int64] = (SHARE_PERCENT * units + 50) // 100
    found: NDArray[np.int64] = np.minimum(units, np.maximum(1, rounded))
    return found
