"""What an engine answered, as records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord, validate_record
from teacher_server.answers import answer
from teacher_server.requests import Asked

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


def written(completion: Completion, *, vocab: int = V) -> TeacherRecord | Failure:
    asked = Asked(GenerateRequest((1, 2), (5,), 3), 4)
    return answer(asked, Output([completion]), identity_digest="x", vocab=vocab)  # type: ignore[arg-type]


def test_a_completion_becomes_a_record() -> None:
    record = written(Completion(logprobs=container(logprobs(3), [3, 4, 5], k=4)))
    assert isinstance(record, TeacherRecord)
    validate_record(record)
    assert (record.token_ids.tolist(), record.prompt_len, record.finish) == ([1, 2, 3, 4, 5], 2, "stop")


def test_what_the_engine_could_not_do_is_a_failure_with_its_reason() -> None:
    aborted, strange = written(Completion(finish_reason="abort")), written(Completion(token_ids=(3, 4, V)))
    crowded = written(Completion(logprobs=container(logprobs(3), [3, 4, 5], k=4)), vocab=6)
    assert isinstance(aborted, Failure) and "abort" in aborted.reason
    assert isinstance(strange, Failure) and f"token id {V}" in strange.reason
    assert isinstance(crowded, Failure) and "lower k" in crowded.reason
