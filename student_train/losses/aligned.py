"""What a teacher of another tokenizer believed, laid beside the positions of a student, as tensors.

Shapes: N positions of a micro-batch, each predicting one token of the student's. B of them begin a chunk
(`student_train.losses.alignment`): there both models go on from the same text. Of these E are a chunk of one token on
each side; the positions of all other chunks make up C spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from cache.records import TeacherRecord
from configs.errors import DataError
from student_train.losses.alignment import Chunks, MappedRows, map_rows
from student_train.losses.targets import SparseTargets


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """The teacher's side of N positions.

    `ranked` are its K kept log-probabilities at the positions in `begins`, the largest first, whatever its tokens are.
    `targets` are its beliefs under the student's ids at those in `exact`. `spans` names for every other position the
    span that it belongs to, -1 for none, and `span_logprobs` is the log-probability that the teacher gave to the text
    of each span, in nats.
    """

    begins: Bool[Tensor, " N"]
    ranked: SparseTargets
    exact: Bool[Tensor, " N"]
    targets: SparseTargets
    spans: Int64[Tensor, " N"]
    span_logprobs: Float[Tensor, " C"]

    @classmethod
    def joined(cls, parts: Sequence[Aligned]) -> Aligned:
        """Several answers behind each other; none give an empty one."""
        if not parts:
            nowhere, none = torch.zeros(0, dtype=torch.bool), _scored(torch.zeros(0, 1).long(), torch.zeros(0, 1))
            return cls(nowhere, none, nowhere, none, torch.zeros(0).long(), torch.zeros(0).double())
        before = np.cumsum([0, *(len(part.span_logprobs) for part in parts)])[:-1].tolist()
        spans = [torch.where(p.spans < 0, -1, p.spans + first) for p, first in zip(parts, before, strict=True)]
        return cls(
            begins=torch.cat([part.begins for part in parts]),
            ranked=_joined([part.ranked for part in parts]),
            exact=torch.cat([part.exact for part in parts]),
            targets=_joined([part.targets for part in parts]),
            spans=torch.cat(spans),
            span_logprobs=torch.cat([part.span_logprobs for part in parts]),
        )

    def to(self, device: torch.device) -> Aligned:
        """The same on another device."""
        return Aligned(
            self.begins.to(device),
            self.ranked.to(device),
            self.exact.to(device),
            self.targets.to(device),
            self.spans.to(device),
            self.span_logprobs.to(device),
        )


def align(record: TeacherRecord, chunks: Chunks, *, vocabulary: Int32[np.ndarray, " V"], positions: int) -> Aligned:
    """The teacher's record beside the `positions` tokens that the student makes of the same answer.

    Raises:
        DataError: the record holds draws, or text alone.
    """
    if record.topk_ids is None or record.topk_logprobs is None:
        held = "text alone" if record.counts is None else "draws of the teacher's distribution"
        raise DataError(
            f"record {record.key.hex()[:12]} holds {held}, but a student of another tokenizer learns from scored rows: "
            "score it first, or set objective: seqkd"
        )
    assert record.tail_logmass is not None and record.target_logprobs is not None
    single = chunks.single
    first, starts = chunks.teacher[:-1], chunks.student[:-1]
    mapped = map_rows(
        vocabulary,
        ids=record.topk_ids[first[single]],
        logprobs=record.topk_logprobs[first[single]],
        tail_logmass=record.tail_logmass[first[single]],
    )
    begins, exact = np.zeros(positions, dtype=bool), np.zeros(positions, dtype=bool)
    begins[starts], exact[starts[single]] = True, True
    sums = np.concatenate([np.zeros(1), np.cumsum(record.target_logprobs, dtype=np.float64)])
    return Aligned(
        begins=torch.from_numpy(begins),
        ranked=_scored(
            torch.from_numpy(record.topk_ids[first].astype(np.int64)),
            torch.from_numpy(record.topk_logprobs[first]),
            torch.from_numpy(record.tail_logmass[first]),
        ),
        exact=torch.from_numpy(exact),
        targets=_scored_by(mapped),
        spans=torch.from_numpy(_owners(chunks, positions=positions)),
        span_logprobs=torch.from_numpy(np.diff(sums[chunks.teacher])[~single]),
    )


def _owners(chunks: Chunks, *, positions: int) -> Int64[np.ndarray, " N"]:
    """The span of each position, -1 where it is a chunk of its own or lies behind the last one."""
    owners = np.full(positions, -1, dtype=np.int64)
    numbers = np.where(chunks.single, -1, np.cumsum(~chunks.single) - 1)
    owners[: chunks.student[-1]] = np.repeat(numbers, np.diff(chunks.student))
    return owners


def _scored_by(rows: MappedRows) -> SparseTargets:
    made = SparseTargets if rows.padding is None else SparseTargets.padded
    return made(
        torch.from_numpy(rows.ids.astype(np.int64)),
        torch.from_numpy(rows.logprobs),
        torch.from_numpy(rows.tail_logmass),
    )


def _scored(ids: Tensor, logprobs: Tensor, tail: Tensor | None = None) -> SparseTargets:
    return SparseTargets(ids, logprobs, torch.zeros(len(ids)) if tail is None else tail)


def _joined(parts: Sequence[SparseTargets]) -> SparseTargets:
    """Rows behind each other; narrower ones are filled up as padding."""
    widths = {part.k for part in parts}
    padded = len(widths) > 1 or any(part.padding is not None for part in parts)
    if not padded:
        return SparseTargets(
            torch.cat([part.ids for part in parts]),
            torch.cat([part.logprobs for part in parts if part.logprobs is not None]),
            torch.cat([part.tail_logmass for part in parts if part.tail_logmass is not None]),
        )
    ids, logprobs = [], []
    for part in parts:
        assert part.logprobs is not None
        known = part.ids if part.padding is None else part.ids.masked_fill(part.padding, -1)
        more = (0, max(widths) - part.k)
        ids.append(torch.nn.functional.pad(known, more, value=-1))
        logprobs.append(torch.nn.functional.pad(part.logprobs, more, value=float("-inf")))
    tails = [part.tail_logmass for part in parts if part.tail_logmass is not None]
    return SparseTargets.padded(torch.cat(ids), torch.cat(logprobs), torch.cat(tails))
