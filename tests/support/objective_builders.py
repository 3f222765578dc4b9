"""What the tests of objectives share: a batch of made-up records, a student of two matrices, a stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from student_builders import VOCAB, records
from torch import Tensor

from configs.stages import StageConfig
from student_train.feed.microbatch import MicroBatch, collate
from student_train.losses.aligned import Aligned, align
from student_train.losses.alignment import Chunks
from student_train.losses.head import Head

HIDDEN = 12


def batch(*, k: int = 8, with_targets: bool = True) -> MicroBatch:
    return collate(records(4, seed=1, k=k), with_targets=with_targets)


def aligned_batch(*, k: int = 8, chunked: bool = False) -> MicroBatch:
    """The same batch as a student of another tokenizer meets it.

    Its tokens are the teacher's, so chunks are single ones; `chunked` joins them by two as if they were cut differently.
    """
    rows = records(4, seed=1, k=k)
    identity = np.arange(VOCAB, dtype=np.int32)
    parts = []
    for row in rows:
        ends = np.unique(np.append(np.arange(0, row.response_len, 2 if chunked else 1), row.response_len))
        parts.append(align(row, Chunks(ends, ends), vocabulary=identity, positions=row.response_len))
    return replace(collate(rows, with_targets=False), aligned=Aligned.joined(parts))


def student(positions: int) -> tuple[Tensor, Head]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, HIDDEN, generator=generator, requires_grad=True)
    return hidden, Head(torch.randn(VOCAB, HIDDEN, generator=generator, requires_grad=True), VOCAB)


def stage(**settings: Any) -> StageConfig:
    return StageConfig.model_validate({"objective": "kd", "steps": 1} | settings)


def cross_entropy(logits: Tensor, rows: MicroBatch) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, rows.labels, reduction="sum")
