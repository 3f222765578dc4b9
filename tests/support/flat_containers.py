"""What an engine returns, made by hand from a table of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

V = 12


@dataclass
class Completion:
    token_ids: tuple[int, ...] = (3, 4, 5)
    finish_reason: str = "stop"
    logprobs: Flat | None = None


@dataclass
class Output:
    outputs: list[Completion] = field(default_factory=list)
    prompt_logprobs: Flat | None = None


@dataclass
class Flat:
    start_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int | None] = field(default_factory=list)


def logprobs(rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(scale=2, size=(rows, V))
    table: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return table


def container(table: NDArray[np.float32], targets: list[int], *, k: int, empty_first: bool = False) -> Flat:
    """What the engine returns: the real token with its true rank, then the k best with ranks 1..k."""
    flat = Flat(start_indices=[0] if empty_first else [])
    for row, target in zip(table, targets, strict=True):
        flat.start_indices.append(len(flat.token_ids))
        best = np.argsort(-row)[:k]
        flat.token_ids += [target, *best.tolist()]
        flat.logprobs += [float(row[target]), *row[best].tolist()]
        flat.ranks += [1 + int((row > row[target]).sum()), *range(1, k + 1)]
    return flat
