"""What several teachers believe together about one sequence: the mean of their distributions, p = sum w_t p_t.

Each teacher's row knows the probabilities of its K most likely tokens and of all others together. A token's mean is
known where every teacher knows it: that is the head of the mixture, and everything else is its tail. So no probability
is invented for a token that a teacher did not rank. The token that really came next is known to every teacher, because
records keep its log-probability whatever its rank; it is in the head where any of them ranks it.

Shapes: S response tokens, K entries of one teacher, C candidates for the head, W entries of the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numpy.typing import NDArray

from cache.records import TAIL_FLOOR, TeacherRecord
from configs.errors import DataError

NO_TOKEN = -1
"""Fills a row of the head up, with log-probability -inf."""


def mixed(told: Sequence[TeacherRecord], *, shares: Sequence[float]) -> TeacherRecord:
    """The mixture of what teachers told about one sequence; `shares`, in their order, sum to 1.

    It is the first record with other beliefs: `topk_ids` are the tokens of the head, the most likely first, filled up
    with `NO_TOKEN`, and `tail_logmass` is everything else. Rows have as many entries as the narrowest teacher's, or one
    more where teachers keep different numbers. `target_ranks` count among the head alone.

    Raises:
        DataError: they are not about one sequence, or one of them holds no log-probabilities.
    """
    first = told[0]
    _require_alike(told)
    if not first.response_len:
        return first
    ids, logprobs = _means(told, shares=shares)
    order = np.lexsort((ids, -logprobs), axis=-1)[:, : _width(told)]
    head = np.take_along_axis(logprobs, order, axis=1)
    ids = np.where(np.isneginf(head), NO_TOKEN, np.take_along_axis(ids, order, axis=1)).astype(np.int32)
    target = _mean([_of(record.target_logprobs) for record in told], shares)
    return replace(
        first,
        topk_ids=ids,
        topk_logprobs=head.astype(np.float32),
        target_logprobs=target.astype(np.float32),
        target_ranks=(1 + (head > target[:, None]).sum(axis=1)).astype(np.int32),
        tail_logmass=_tail(told, ids, shares=shares),
    )


def _require_alike(told: Sequence[TeacherRecord]) -> None:
    first = told[0]
    for record in told:
        same = record.prompt_len == first.prompt_len and np.array_equal(record.token_ids, first.token_ids)
        if not same or record.topk_logprobs is None:
            lacks = "is about another sequence" if not same else "holds no log-probabilities"
            raise DataError(
                f"record {record.key.hex()[:12]} cannot be mixed with {first.key.hex()[:12]}: it {lacks}: fill again"
            )


def _width(told: Sequence[TeacherRecord]) -> int:
    """W: all that everybody ranks, and the next token where the narrowest teacher does not rank it."""
    held = {record.k for record in told}
    return min(held) + (len(held) > 1)


def _means(
    told: Sequence[TeacherRecord], *, shares: Sequence[float]
) -> tuple[Int32[np.ndarray, "S C"], Float64[np.ndarray, "S C"]]:
    """Mean log-probabilities of the candidates, -inf where they are unknown; each token is a candidate once.

    Candidates are what the first teacher ranks, and the next token where another one does.
    """
    first, target = told[0], told[0].response_ids[:, None]
    ranked = [(_ids(record) == target).any(axis=1) for record in told]
    extra = np.any(ranked, axis=0) & ~ranked[0]
    ids = np.concatenate([_ids(first), target], axis=1)
    values, known = zip(*(_looked_up(record, ids) for record in told), strict=True)
    everywhere = np.all(known, axis=0)
    everywhere[:, -1] &= extra
    return ids, np.where(everywhere, _mean(values, shares), -np.inf)


def _looked_up(
    record: TeacherRecord, wanted: Int32[np.ndarray, "S C"]
) -> tuple[Float64[np.ndarray, "S C"], Bool[np.ndarray, "S C"]]:
    """What a teacher believes of these tokens, and whether it is known: it ranks them, or they came next.

    Of the others it is -inf.
    """
    ids, logprobs = _ids(record).astype(np.int64), _of(record.topk_logprobs)
    # Rows are told apart by multiples of more than any id, so that one search finds the tokens of all rows.
    step = int(max(ids.max(initial=0), wanted.max(initial=0))) + 1
    rows = np.arange(len(ids), dtype=np.int64)[:, None] * step
    keys: Int64[np.ndarray, " n"] = (ids + rows).ravel()
    order = keys.argsort()
    asked = wanted.astype(np.int64) + rows
    at = np.minimum(np.searchsorted(keys, asked.ravel(), sorter=order), len(keys) - 1).reshape(asked.shape)
    place = order[at]
    ranked = keys[place] == asked
    came_next = wanted == record.response_ids[:, None]
    # A row's own entry first: it was rounded when it was stored, and a student of this teacher alone learns that.
    told = np.where(came_next, _of(record.target_logprobs)[:, None], -np.inf)
    return np.where(ranked, logprobs.ravel()[place], told), ranked | came_next


def _tail(
    told: Sequence[TeacherRecord], head: Int32[np.ndarray, "S W"], *, shares: Sequence[float]
) -> NDArray[np.float32]:
    """Log of the mean probability outside the head; -inf where no teacher leaves anything out (K = V).

    Each teacher's is the tail that it told and what it ranks outside the head, less the next token where that is in the
    head and not ranked by it. So the tail of one teacher mixed with itself is the one that is stored.
    """
    if all(np.isneginf(_of(record.tail_logmass)).all() for record in told):
        return np.full(len(head), -np.inf, dtype=np.float32)
    rest = np.zeros(len(head))
    for share, record in zip(shares, told, strict=True):
        inside = np.where(head == NO_TOKEN, -np.inf, _looked_up(record, head)[0])
        mass = np.exp(_of(record.topk_logprobs)).sum(axis=1) - np.exp(inside).sum(axis=1)
        rest += share * np.maximum(np.exp(_of(record.tail_logmass)) + mass, 0.0)
    tail: NDArray[np.float32] = np.log(np.maximum(rest, TAIL_FLOOR)).astype(np.float32)
    return tail


def _mean(values: Sequence[NDArray[np.float64]], shares: Sequence[float]) -> NDArray[np.float64]:
    """Log of sum w_t exp(values_t)."""
    parts = [np.log(share) + each for share, each in zip(shares, values, strict=True)]
    mean: NDArray[np.float64] = np.logaddexp.reduce(parts)
    return mean


def _ids(record: TeacherRecord) -> Int32[np.ndarray, "S K"]:
    assert record.topk_ids is not None
    return record.topk_ids


def _of(values: NDArray[np.float32] | None) -> NDArray[np.float64]:
    assert values is not None
    return values.astype(np.float64)
