from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builders import VOCAB, make_record, open_cache, random_logprobs

from cache.disk.encoding import (
    ENCODINGS,
    HELD_TYPES,
    encode_draws,
    encode_rows,
    grown_tail,
    held_logprobs,
    held_rows,
    resolve_encoding,
    row_columns,
)
from cache.records import tail_logmass
from configs.errors import RecordError


def decode_rows(columns: Any, *, tail_logmass: np.ndarray, encoding: Any) -> np.ndarray:
    """What a reader gets from the columns of a row."""
    values, scale = held_rows(columns, tail_logmass=tail_logmass, encoding=encoding)
    return held_logprobs(values, scale, encoding=encoding)


def zipf_rows(rng: np.random.Generator, *, rows: int, k: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-k ids and log-probabilities of peaked rows: zipf-like with an exponent from nearly flat to nearly sure."""
    exponents = rng.uniform(1.1, 3.5, size=(rows, 1))
    ranks = np.arange(1, vocab + 1)
    noise = rng.normal(scale=0.4, size=(rows, k))
    logits = -exponents * np.log(ranks[:k]) + noise
    rest = np.stack([np.exp(-e * np.log(ranks[k:])).sum() for e in exponents[:, 0]])
    logprobs = logits - np.log(np.exp(logits).sum(axis=1) + rest)[:, None]
    # Frequent tokens are likely everywhere: ids follow a zipf law themselves.
    ids = np.stack([_distinct(rng, k=k, vocab=vocab) for _ in range(rows)])
    return ids.astype(np.int32), -np.sort(-logprobs, axis=1).astype(np.float32)


def _distinct(rng: np.random.Generator, *, k: int, vocab: int) -> np.ndarray:
    return rng.permutation(np.unique((vocab ** rng.uniform(size=8 * k)).astype(np.int64)))[:k]


def kl(true: np.ndarray, true_tail: np.ndarray, decoded: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """KL(true ‖ decoded) of K + 1 outcomes, in nats."""
    left = np.concatenate([true, true_tail[:, None]], axis=1).astype(np.float64)
    left -= np.log(np.exp(left).sum(axis=1, keepdims=True))
    right = np.concatenate([decoded, tail[:, None]], axis=1).astype(np.float64)
    cost: np.ndarray = (np.exp(left) * (left - right)).sum(axis=1)
    return cost


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 40),
    st.floats(0.0, 20.0),
    st.sampled_from(["topk-u8", "topk-f16"]),
)
def test_a_lossy_row_stays_a_distribution(seed: int, rows: int, k: int, scale: float, encoding: str) -> None:
    rng = np.random.default_rng(seed)
    logprobs = random_logprobs(rng, rows=rows, k=k, vocab=VOCAB, scale=scale)
    tail = tail_logmass(logprobs, vocab=VOCAB)
    resolved = resolve_encoding(encoding, k=k, vocab=VOCAB)
    columns = encode_rows(logprobs, encoding=resolved)
    assert tuple(columns) == row_columns(resolved)
    decoded = decode_rows(columns, tail_logmass=tail, encoding=resolved)
    mass = np.exp(decoded.astype(np.float64)).sum(axis=1) + np.exp(tail.astype(np.float64))
    np.testing.assert_allclose(mass, 1.0, atol=2e-6)
    assert (np.diff(decoded, axis=1) <= 0).all()
    near = logprobs > logprobs[:, :1] - 15.5
    tolerance = 0.13 if encoding == "topk-u8" else 0.02
    assert np.abs(decoded - logprobs)[near].max() < tolerance


@given(st.integers(0, 2**32 - 1))
def test_full_rows_come_back_bit_for_bit(seed: int) -> None:
    logprobs = random_logprobs(np.random.default_rng(seed), rows=7, k=VOCAB, vocab=VOCAB)
    tail = tail_logmass(logprobs, vocab=VOCAB)
    decoded = decode_rows(encode_rows(logprobs, encoding="full"), tail_logmass=tail, encoding="full")
    np.testing.assert_array_equal(decoded, logprobs)


@pytest.mark.parametrize("encoding", ["topk-u8", "topk-f16"])
def test_ids_that_the_teacher_rules_out_do_no_harm(encoding: str) -> None:
    logprobs = np.array([[np.log(0.75), np.log(0.25), -np.inf]], dtype=np.float32)
    tail = tail_logmass(logprobs, vocab=VOCAB)
    resolved = resolve_encoding(encoding, k=3, vocab=VOCAB)
    decoded = decode_rows(encode_rows(logprobs, encoding=resolved), tail_logmass=tail, encoding=resolved)
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(np.exp(decoded[0]), [0.75, 0.25, 0.0], atol=5e-3)


def test_quantising_peaked_rows_costs_at_most_a_ten_thousandth_nat() -> None:
    _, logprobs = zipf_rows(np.random.default_rng(1), rows=4096, k=64, vocab=49_152)
    tail = tail_logmass(logprobs, vocab=49_152)
    decoded = decode_rows(encode_rows(logprobs, encoding="topk-u8"), tail_logmass=tail, encoding="topk-u8")
    cost = kl(logprobs, tail, decoded, tail)
    assert cost.min() > -1e-6
    assert cost.mean() < 1e-4


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_cutting_k_moves_the_mass_into_the_tail(seed: int, stored: int, wanted: int) -> None:
    k = min(stored, wanted)
    logprobs = random_logprobs(np.random.default_rng(seed), rows=5, k=stored, vocab=VOCAB)
    tail = grown_tail(tail_logmass(logprobs, vocab=VOCAB), logprobs[:, k:])
    np.testing.assert_allclose(tail, tail_logmass(logprobs[:, :k], vocab=VOCAB), rtol=1e-4, atol=1e-6)


def test_rows_are_held_in_the_type_that_is_promised() -> None:
    rng = np.random.default_rng(0)
    logprobs = random_logprobs(rng, rows=9, k=VOCAB, vocab=VOCAB)
    tail = tail_logmass(logprobs[:, :8], vocab=VOCAB)
    for encoding in ENCODINGS:
        resolved = resolve_encoding(encoding, k=VOCAB if encoding == "full" else 8, vocab=VOCAB)
        assert resolved == encoding
        draws = rng.integers(0, 65_535, size=(9, 8)).astype(np.int32)
        rows = logprobs if encoding == "full" else logprobs[:, :8]
        columns = encode_draws(draws) if resolved == "sampled" else encode_rows(rows, encoding=resolved)
        assert tuple(columns) == row_columns(resolved)
        values, scale = held_rows(columns, tail_logmass=tail, encoding=resolved)
        assert (values.dtype, scale.dtype, scale.shape) == (HELD_TYPES[resolved], np.float32, (9,))
        if resolved == "sampled":
            np.testing.assert_array_equal(values, draws)


def test_steps_are_those_of_the_format() -> None:
    logprobs = random_logprobs(np.random.default_rng(4), rows=500, k=40, vocab=VOCAB, scale=6.0)
    steps = np.minimum(np.rint(16 * (logprobs[:, :1].astype(np.float64) - logprobs)), 255)
    columns = encode_rows(logprobs, encoding="topk-u8")
    np.testing.assert_array_equal(columns["topk_dq"].astype(np.int64), np.diff(steps, axis=1, prepend=0))
    np.testing.assert_array_equal(columns["top1_logprob"], logprobs[:, 0])
    assert (steps == 255).any(), "some entries lie beyond the ceiling"


def test_draws_of_as_many_ids_as_there_are_stay_draws() -> None:
    assert resolve_encoding("sampled", k=VOCAB, vocab=VOCAB) == "sampled"


def test_k_equal_to_the_vocabulary_is_always_kept_in_full(tmp_path: Path) -> None:
    record = make_record(range(2, 12), prompt_len=4, k=VOCAB)
    cache = open_cache(tmp_path)
    cache.put([record], vocab=VOCAB, encoding="topk-u8")
    (stored,) = open_cache(tmp_path).get_many([record.key])
    assert stored is not None and stored.tail_logmass is not None
    np.testing.assert_array_equal(stored.topk_logprobs, record.topk_logprobs)
    assert np.isneginf(stored.tail_logmass).all()


@pytest.mark.parametrize(("encoding", "k"), [("full", 4), ("zip", 4), ("topk-u8", VOCAB + 1)])
def test_encodings_that_cannot_be(encoding: str, k: int) -> None:
    with pytest.raises(RecordError):
        resolve_encoding(encoding, k=k, vocab=VOCAB)


def test_a_row_decodes_to_the_same_bits_whatever_rows_share_its_chunk() -> None:
    rng = np.random.default_rng(3)
    _, logprobs = zipf_rows(rng, rows=67, k=40, vocab=500)
    tail = tail_logmass(logprobs, vocab=500)
    columns = encode_rows(logprobs, encoding="topk-u8")
    whole = decode_rows(columns, tail_logmass=tail, encoding="topk-u8")
    for size in (1, 2, 5, 33):
        parts = [slice(at, at + size) for at in range(0, 67, size)]
        decoded = [
            decode_rows(
                {name: column[part] for name, column in columns.items()}, tail_logmass=tail[part], encoding="topk-u8"
            )
            for part in parts
        ]
        assert np.concatenate(decoded).tobytes() == whole.tobytes(), size
