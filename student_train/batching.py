"""Micro-batches: what one forward and backward pass of one process works on.

This is the one place that shifts: the hidden state of token t - 1 predicts token t. Row i of a record belongs to token
`prompt_len + i`, so it meets the hidden state at `prompt_len + i - 1`; the last token of a record predicts nothing and
is not fed in.

Rows are padded on the right and sorted by length first. There is no attention mask: the decoders are causal, so no
token ever sees the padding to its right, and a plain causal pass takes the fastest attention there is.

How rows fall into micro-batches is a pure function of their lengths. Every process can therefore tell how many each
other process has, and the shorter ones add empty ones, without asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from cache.records import TeacherRecord
from configs.errors import DataError
from student_train.targets import SparseTargets


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """B padded rows of T tokens with N response positions in all.

    `positions[n]` is the index, into the B x T hidden states laid flat, of the state that predicts `labels[n]`.
    `targets` is what the teacher believed there, or None when only its text is learned.
    """

    input_ids: Int64[Tensor, "B T"]
    positions: Int64[Tensor, " N"]
    labels: Int64[Tensor, " N"]
    targets: SparseTargets | None

    def to(self, device: torch.device) -> MicroBatch:
        """The same batch on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return MicroBatch(self.input_ids.to(device), self.positions.to(device), self.labels.to(device), targets)


def split_rows(lengths: NDArray[np.int64], *, tokens: int) -> tuple[NDArray[np.int64], ...]:
    """Cut rows of these lengths into micro-batches of at most `tokens` padded tokens, longest first.

    Returns the rows of each micro-batch as positions in `lengths`. A row longer than `tokens` is one of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        fits = max(1, tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + fits])
        start += fits
    return tuple(batches)


def collate(records: Sequence[TeacherRecord], *, with_targets: bool) -> MicroBatch:
    """Lay records out as one micro-batch, on the CPU. No records give an empty one that still runs the whole model.

    Raises:
        DataError: `with_targets` and a record has no log-probabilities, or they differ in K.
    """
    width = max((len(record.token_ids) - 1 for record in records), default=1)
    # Any id serves as padding: nothing to its left sees it and no loss is taken at it.
    input_ids = np.zeros((max(1, len(records)), max(1, width)), dtype=np.int64)
    positions: list[NDArray[np.int64]] = []
    for row, record in enumerate(records):
        input_ids[row, : len(record.token_ids) - 1] = record.token_ids[:-1]
        first = row * input_ids.shape[1] + record.prompt_len - 1
        positions.append(np.arange(first, first + record.response_len, dtype=np.int64))
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        positions=torch.from_numpy(_joined(positions)),
        labels=torch.from_numpy(_joined([record.response_ids for record in records])),
        targets=_targets(records) if with_targets else None,
    )


def _joined(arrays: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *arrays], dtype=np.int64)
    return joined


def _targets(records: Sequence[TeacherRecord]) -> SparseTargets:
    for record in records:
        if record.topk_ids is None:
            raise DataError(
                f"record {record.key.hex()[:12]} holds text alone, but objective=kd needs the teacher's "
                "log-probabilities: score it first"
            )
    widths = sorted({record.k for record in records}) or [1]
    if len(widths) > 1:
        raise DataError(f"records of one batch keep {widths} tokens a position: read them through a view with one k")
    ids = [record.topk_ids for record in records if record.topk_ids is not None]
    logprobs = [record.topk_logprobs for record in records if record.topk_logprobs is not None]
    tails = [record.tail_logmass for record in records if record.tail_logmass is not None]
    empty = np.empty((0, widths[0]))
    return SparseTargets(
        ids=torch.from_numpy(np.concatenate([empty, *ids]).astype(np.int64)),
        logprobs=torch.from_numpy(np.concatenate([empty, *logprobs]).astype(np.float32)),
        tail_logmass=torch.from_numpy(np.concatenate([np.empty(0), *tails]).astype(np.float32)),
    )
