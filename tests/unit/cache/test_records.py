from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from store_builders import VOCAB, make_record

from cache.records import MASS_TOLERANCE, TeacherRecord, tail_logmass, validate_record
from configs.errors import RecordError

GOOD = make_record([3, 4, 5, 6, 7], prompt_len=2, k=4)


def edited(name: str, edit: Callable[[np.ndarray], None]) -> TeacherRecord:
    array = getattr(GOOD, name).copy()
    edit(array)
    return dataclasses.replace(GOOD, **{name: array})


def put(index: tuple[int, ...] | int, value: float) -> Callable[[np.ndarray], None]:
    def edit(array: np.ndarray) -> None:
        array[index] = value

    return edit


def heavy(array: np.ndarray) -> None:
    array[0] = np.log(0.3).astype(np.float32)


BROKEN: dict[str, Callable[[], TeacherRecord]] = {
    "prompt_len=0": lambda: dataclasses.replace(GOOD, prompt_len=0),
    "prompt_len=6": lambda: dataclasses.replace(GOOD, prompt_len=6),
    "negative token id": lambda: edited("token_ids", put(1, -1)),
    "all five or none": lambda: dataclasses.replace(GOOD, target_ranks=None),
    "for 4 response tokens": lambda: dataclasses.replace(GOOD, prompt_len=1),
    "NaN": lambda: edited("topk_logprobs", put((0, 0), np.nan)),
    "NaN log": lambda: edited("target_logprobs", put(0, np.nan)),
    "NaN log-": lambda: edited("tail_logmass", put(0, np.nan)),
    "positive": lambda: edited("target_logprobs", put(0, 0.01)),
    "positive log": lambda: edited("tail_logmass", put(0, 0.01)),
    "descending": lambda: edited("topk_logprobs", lambda array: array.sort(axis=1)),
    "sum to more than 1": lambda: edited("topk_logprobs", heavy),
    "negative top-k id": lambda: edited("topk_ids", put((0, 0), -1)),
    "duplicate ids": lambda: edited("topk_ids", lambda array: array[1].fill(3)),
    "rank below 1": lambda: edited("target_ranks", put(0, 0)),
    "outside the vocabulary": lambda: edited("topk_ids", put((0, 0), VOCAB)),
    "tail_logmass=-inf": lambda: edited("tail_logmass", put(0, -np.inf)),
}


def test_the_good_record_is_good() -> None:
    validate_record(GOOD, vocab=VOCAB)
    validate_record(make_record([3, 4], prompt_len=2, k=4), vocab=VOCAB)
    validate_record(make_record([3, 4, 5], prompt_len=2, k=VOCAB), vocab=VOCAB)
    validate_record(make_record([3, 4, 5], prompt_len=2, k=0), vocab=VOCAB)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule: str) -> None:
    with pytest.raises(RecordError, match=rule.strip()):
        validate_record(BROKEN[rule](), vocab=VOCAB)


def test_k_above_the_vocabulary_and_a_finite_tail_at_k_equal_v() -> None:
    with pytest.raises(RecordError, match="exceeds the vocabulary"):
        validate_record(GOOD, vocab=3)
    whole = make_record([3, 4, 5], prompt_len=2, k=VOCAB)
    finite = dataclasses.replace(whole, tail_logmass=np.zeros(1, dtype=np.float32) - 20)
    with pytest.raises(RecordError, match="finite"):
        validate_record(finite, vocab=VOCAB)


def test_rounding_of_the_engine_is_allowed() -> None:
    logprobs = np.log(np.full((3, 4), (1 + MASS_TOLERANCE / 2) / 4)).astype(np.float32)
    validate_record(dataclasses.replace(GOOD, topk_logprobs=logprobs), vocab=VOCAB)


@pytest.mark.parametrize(("excess", "sound"), [(-2e-5, True), (-2e-6, True), (2e-6, False), (1e-4, False)])
def test_a_sum_close_to_the_limit_is_added_up_exactly(excess: float, sound: bool) -> None:
    whole = make_record([3, 4, 5, 6, 7], prompt_len=2, k=VOCAB - 1)
    mass = np.full((3, VOCAB - 1), (1 + MASS_TOLERANCE + excess) / (VOCAB - 1))
    record = dataclasses.replace(whole, topk_logprobs=np.log(mass).astype(np.float32))
    assert record.topk_logprobs is not None
    exact = np.exp(record.topk_logprobs.astype(np.float64)).sum(axis=1).max()
    assert (exact <= 1 + MASS_TOLERANCE) == sound
    if sound:
        validate_record(record, vocab=VOCAB)
    else:
        with pytest.raises(RecordError, match="sum to more than 1"):
            validate_record(record, vocab=VOCAB)


def test_the_tail_is_summed_in_float64_and_has_a_floor() -> None:
    probabilities = np.array([[1 - 1e-6, 4e-7, 3e-7, 2e-7]])
    tail = tail_logmass(np.log(probabilities), vocab=10)
    assert np.exp(tail[0]) == pytest.approx(1e-7, rel=0.01)
    sure = np.array([[0.0, -200.0]])
    assert tail_logmass(sure, vocab=10)[0] == pytest.approx(-24 * np.log(2))
    assert tail_logmass(sure, vocab=2)[0] == -np.inf
