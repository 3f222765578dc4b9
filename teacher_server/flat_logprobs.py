"""The engine's own flat log-probability containers: lists of Python numbers, one after the other for all positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from configs.errors import EngineError
from teacher_server.logprob_rows import RowBlock


class FlatContainer(Protocol):
    """The part of `vllm.logprobs.FlatLogprobs` that is read here."""

    start_indices: list[int]
    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int | None]


@dataclass(frozen=True, slots=True)
class FlatRows:
    """A flat container as `LogprobRows`. A prompt's first position is there and empty."""

    container: FlatContainer

    def block(self, *, first: int) -> RowBlock:
        """See `LogprobRows`."""
        flat = self.container
        rows = len(flat.start_indices) - first
        if rows < 1:
            raise EngineError(f"the engine returned no rows of log-probabilities from position {first} on")
        offset = flat.start_indices[first]
        stride, rest = divmod(len(flat.token_ids) - offset, rows)
        if rest or flat.start_indices[-1] != offset + (rows - 1) * stride:
            raise EngineError("the engine's log-probability rows are not of one length")
        return RowBlock(
            ids=np.array(flat.token_ids[offset:], dtype=np.int32).reshape(rows, stride),
            logprobs=np.array(flat.logprobs[offset:], dtype=np.float32).reshape(rows, stride),
            ranks=np.array(flat.ranks[offset::stride], dtype=np.int32),
        )
