"""Micro-batches: what one forward and backward pass of one process works on.

This is the only place with a shift by one: the hidden state of token t - 1 predicts token t. Row i of a record belongs
to token `prompt_len + i`, so it meets the hidden state at `prompt_len + i - 1`; the last token of a record predicts
nothing, and the model does not read it.

Sequences stand in padded rows as `student_train.feed.packing` lays them out, one or several behind each other. There is
no attention mask for padding: the decoders are causal, so no token ever sees what stands to its right, and a row with
one sequence takes the fastest attention there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from cache.records import TeacherRecord
from configs.errors import DataError
from student_train.feed.packing import Layout
from student_train.losses.advantages import PolicyTerms
from student_train.losses.aligned import Aligned
from student_train.losses.targets import LiveTargets, SparseTargets


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """B padded rows of T tokens with N response positions in all.

    `position_ids` count from 0 in each sequence and go on through the padding behind the last one; None when no row
    holds more than one. `positions[n]` is the index, into the B x T hidden states laid flat, of the state that predicts
    `labels[n]`.
    `targets` is what the teacher believed there, or None when only its text is learned; `policy` is what is known
    about labels that a student sampled to learn from. `live` takes the place of `targets` where the teacher is at hand,
    and `aligned` where it has another tokenizer. With `plain_weight` this is plain text beside rollouts, and its
    cross-entropy is multiplied by that weight.

    `read` is how many tokens of each row, from its first on, belong to sequences. `per_text` is the response tokens of
    the whole step over its sequences: a sum over sequences times it is, divided by the response tokens of the step, the
    mean over its sequences.
    """

    input_ids: Int64[Tensor, "B T"]
    position_ids: Int64[Tensor, "B T"] | None
    positions: Int64[Tensor, " N"]
    labels: Int64[Tensor, " N"]
    targets: SparseTargets | None
    policy: PolicyTerms | None = None
    plain_weight: float | None = None
    aligned: Aligned | None = None
    live: LiveTargets | None = None
    read: Int64[Tensor, " B"] | None = None
    per_text: float = 1.0

    @property
    def per_token(self) -> float:
        """A sum over response tokens is divided by those of the step as it is."""
        return 1.0

    @property
    def groups(self) -> None:
        """Sequences are not related to each other."""
        return

    @property
    def tokens(self) -> Bool[Tensor, "B T"]:
        """Which places hold tokens of sequences."""
        assert self.read is not None
        return torch.arange(self.input_ids.shape[1], device=self.read.device) < self.read[:, None]

    def to(self, device: torch.device) -> MicroBatch:
        """The same batch on another device."""
        return MicroBatch(
            input_ids=self.input_ids.to(device),
            position_ids=None if self.position_ids is None else self.position_ids.to(device),
            positions=self.positions.to(device),
            labels=self.labels.to(device),
            targets=None if self.targets is None else self.targets.to(device),
            policy=None if self.policy is None else self.policy.to(device),
            plain_weight=self.plain_weight,
            aligned=None if self.aligned is None else self.aligned.to(device),
            live=self.live,
            read=None if self.read is None else self.read.to(device),
            per_text=self.per_text,
        )


def collate(
    records: Sequence[TeacherRecord],
    *,
    with_targets: bool,
    layout: Layout | None = None,
    terms: Sequence[PolicyTerms] | None = None,
) -> MicroBatch:
    """Lay records out as one micro-batch, on the CPU; without `layout` each in a row of its own, in their order.

    `terms` are those of each record, where a student sampled them. No records give an empty batch that still runs the
    whole model.

    Raises:
        DataError: `with_targets` and a record has no log-probabilities, or they differ in K.
    """
    layout = tuple((at,) for at in range(len(records))) if layout is None else layout
    rows = [[records[at] for at in row] for row in layout]
    laid_out = [record for row in rows for record in row]
    width = max((sum(_input_tokens(record) for record in row) for row in rows), default=1)
    # Any id will do as padding: no token before it sees it, and it has no loss.
    input_ids = np.zeros((max(1, len(rows)), max(1, width)), dtype=np.int64)
    position_ids = np.tile(np.arange(input_ids.shape[1], dtype=np.int64), (len(input_ids), 1))
    positions: list[NDArray[np.int64]] = []
    read = np.zeros(len(input_ids), dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for record in row:
            end = start + _input_tokens(record)
            input_ids[number, start:end] = record.token_ids[:-1]
            position_ids[number, start:] = np.arange(input_ids.shape[1] - start)
            first = number * input_ids.shape[1] + start + record.prompt_len - 1
            positions.append(np.arange(first, first + record.response_len, dtype=np.int64))
            start = end
        read[number] = start
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids) if any(len(row) > 1 for row in rows) else None,
        positions=torch.from_numpy(_joined(positions)),
        labels=torch.from_numpy(_joined([record.response_ids for record in laid_out])),
        targets=_targets(laid_out) if with_targets else None,
        policy=None if terms is None else PolicyTerms.joined([terms[at] for row in layout for at in row]),
        read=torch.from_numpy(read),
    )


def _input_tokens(record: TeacherRecord) -> int:
    """Tokens of a record that the model reads: all but the last."""
    return len(record.token_ids) - 1


def _joined(arrays: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *arrays], dtype=np.int64)
    return joined


def _targets(records: Sequence[TeacherRecord]) -> SparseTargets:
    for record in records:
        if record.topk_ids is None:
            raise DataError(
                f"record {record.key.hex()[:12]} holds text alone, but the objective needs the teacher's "
                "log-probabilities: score it first"
            )
    drawn = {record.counts is not None for record in records}
    if drawn == {True, False}:
        raise DataError("records of one batch are partly drawn and partly scored: read them through separate views")
    return _drawn_targets(records) if True in drawn else _scored_targets(records)


def _scored_targets(records: Sequence[TeacherRecord]) -> SparseTargets:
    widths = sorted({record.k for record in records}) or [1]
    if len(widths) > 1:
        raise DataError(f"records of one batch keep {widths} tokens a position: read them through a view with one k")
    ids = [record.topk_ids for record in records if record.topk_ids is not None]
    logprobs = [record.topk_logprobs for record in records if record.topk_logprobs is not None]
    tails = [record.tail_logmass for record in records if record.tail_logmass is not None]
    empty = np.empty((0, widths[0]))
    kept = torch.from_numpy(np.concatenate([empty, *ids]).astype(np.int64))
    # Teachers that are mixed do not rank the same tokens, so some rows are filled up.
    made = SparseTargets.padded if bool((kept < 0).any()) else SparseTargets
    return made(
        kept,
        torch.from_numpy(np.concatenate([empty, *logprobs]).astype(np.float32)),
        torch.from_numpy(np.concatenate([np.empty(0), *tails]).astype(np.float32)),
    )


def _drawn_targets(records: Sequence[TeacherRecord]) -> SparseTargets:
    """Records of draws differ in K; narrower ones are padded with id -1 and count 0, as rows within a record are."""
    rows, width = sum(record.response_len for record in records), max(record.k for record in records)
    ids, counts = np.full((rows, width), -1, dtype=np.int64), np.zeros((rows, width), dtype=np.int64)
    start = 0
    for record in records:
        assert record.topk_ids is not None and record.counts is not None
        end = start + record.response_len
        ids[start:end, : record.k], counts[start:end, : record.k] = record.topk_ids, record.counts
        start = end
    return SparseTargets.drawn(torch.from_numpy(ids), torch.from_numpy(counts))
