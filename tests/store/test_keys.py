from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.canonical import canonical
from cache.identity import TeacherIdentity
from cache.keys import engine_seed, generation_key, sequence_key
from cache.records import GenerateRequest
from configs.errors import RecordError

IDENTITY = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32)
DIGEST = "7efdf014767109654a3dbe5e0971b5aceb2875688199ed397af33dadf3e8033f"
REQUEST = GenerateRequest(
    prompt_ids=(5, 6, 7), stop_ids=(1, 2), max_new_tokens=16, temperature=0.7, top_p=0.9, top_k=20, min_p=0.05
)
GOLDEN_SEQUENCE = "e8a1277676d2a5a069fb000f4c038b95e8b0e6533296e1869a7c439f2fb2c266"
GOLDEN_SAMPLED = "763a5ea7ae46dc6ea322daf5d3e70eded2c8f13849357e30d5c484c3dba9613c"
GOLDEN_GREEDY = "9b7fa574b52f9be49e7c8aad6ecf4e444b30e5648fef71250ba6aeaf828c7c0f"

CHANGES: dict[str, Any] = {
    "prompt_ids": (5, 6, 8),
    "stop_ids": (1, 3),
    "temperature": 0.71,
    "top_p": 0.91,
    "top_k": 21,
    "min_p": 0.06,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "sampling_seed": 1,
    "replicate": 1,
}
NOISE_ONLY = {"top_p", "top_k", "min_p", "sampling_seed", "replicate"}


def test_keys_are_the_golden_ones() -> None:
    assert IDENTITY.digest() == DIGEST
    assert sequence_key(DIGEST, [1, 2, 3], 2).hex() == GOLDEN_SEQUENCE
    assert generation_key(DIGEST, REQUEST).hex() == GOLDEN_SAMPLED
    assert generation_key(DIGEST, dataclasses.replace(REQUEST, temperature=0.0)).hex() == GOLDEN_GREEDY


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(TeacherIdentity)])
def test_every_field_of_an_identity_changes_its_digest(name: str) -> None:
    value: Any = 7 if name == "numerics_epoch" else "other"
    assert dataclasses.replace(IDENTITY, **{name: value}).digest() != DIGEST


def test_an_absent_field_differs_from_an_empty_one() -> None:
    assert dataclasses.replace(IDENTITY, quantization="").digest() != IDENTITY.digest()


def test_every_field_of_a_request_is_accounted_for() -> None:
    names = {item.name for item in dataclasses.fields(GenerateRequest)}
    assert names == {*CHANGES, "max_new_tokens"}


@pytest.mark.parametrize("name", CHANGES)
def test_changing_a_sampled_request_changes_its_key(name: str) -> None:
    changed = dataclasses.replace(REQUEST, **{name: CHANGES[name]})
    assert generation_key(DIGEST, changed) != generation_key(DIGEST, REQUEST)


@pytest.mark.parametrize("name", CHANGES)
def test_at_temperature_zero_only_what_moves_the_maximum_counts(name: str) -> None:
    greedy = dataclasses.replace(REQUEST, temperature=0.0)
    changed = dataclasses.replace(greedy, **{name: CHANGES[name]})
    same = generation_key(DIGEST, changed) == generation_key(DIGEST, greedy)
    assert same == (name in NOISE_ONLY)


def test_the_limit_the_order_of_stops_and_the_sign_of_zero_are_not_keyed() -> None:
    key = generation_key(DIGEST, REQUEST)
    assert generation_key(DIGEST, dataclasses.replace(REQUEST, max_new_tokens=99)) == key
    assert generation_key(DIGEST, dataclasses.replace(REQUEST, stop_ids=(2, 1, 1))) == key
    assert generation_key(DIGEST, dataclasses.replace(REQUEST, presence_penalty=-0.0)) == key


def test_the_teacher_is_in_both_keys() -> None:
    other = dataclasses.replace(IDENTITY, dtype="float32").digest()
    assert generation_key(other, REQUEST) != generation_key(DIGEST, REQUEST)
    assert sequence_key(other, [1, 2], 1) != sequence_key(DIGEST, [1, 2], 1)


def test_the_prompt_length_and_every_container_of_ids() -> None:
    key = sequence_key(DIGEST, [1, 2, 3], 2)
    assert sequence_key(DIGEST, [1, 2, 3], 1) != key
    assert sequence_key(DIGEST, (1, 2, 3), 2) == key
    assert sequence_key(DIGEST, np.array([1, 2, 3], dtype=np.int64), 2) == key
    assert sequence_key(DIGEST, np.array([1, 2, 3], dtype=np.uint16), 2) == key


@pytest.mark.parametrize("ids", [[-1], [2**31], [[1, 2]]])
def test_ids_that_no_vocabulary_has_are_refused(ids: list[int]) -> None:
    with pytest.raises(RecordError):
        sequence_key(DIGEST, np.asarray(ids), 1)


def test_the_largest_id_is_allowed() -> None:
    assert sequence_key(DIGEST, [2**31 - 1], 1) != sequence_key(DIGEST, [2**31 - 2], 1)


def test_a_nan_is_refused() -> None:
    with pytest.raises(RecordError, match="NaN"):
        generation_key(DIGEST, dataclasses.replace(REQUEST, min_p=float("nan")))


@given(st.binary(min_size=32, max_size=32))
def test_the_engine_seed_has_63_bits(key: bytes) -> None:
    assert 0 <= engine_seed(key) < 2**63
    assert engine_seed(b"\xff" * 8 + key[8:]) == 2**63 - 1


scalars = st.none() | st.text() | st.binary() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False)


@given(st.lists(scalars), st.lists(scalars))
def test_different_values_never_share_their_bytes(left: list[object], right: list[object]) -> None:
    described = [(type(value), value) for value in left], [(type(value), value) for value in right]
    assert (canonical(*left) == canonical(*right)) == (described[0] == described[1])  # type: ignore[arg-type]
