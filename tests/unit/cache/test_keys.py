from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.identity import RemoteTeacherIdentity, TeacherIdentity
from cache.keys import engine_seed, generation_key, sequence_key
from cache.records import GenerateRequest
from configs.errors import RecordError

REMOTE = RemoteTeacherIdentity(provider="p", model="m", revision="r")


IDENTITY = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32)


GOLDEN = json.loads(Path(__file__).with_name("golden_keys.json").read_text())


DIGEST = GOLDEN["identity"]


REQUEST = GenerateRequest(
    prompt_ids=(5, 6, 7), stop_ids=(1, 2), max_new_tokens=16, temperature=0.7, top_p=0.9, top_k=20, min_p=0.05
)


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
    "grammar": 'start: "yes" | "no"',
}


NOISE_ONLY = {"top_p", "top_k", "min_p", "sampling_seed", "replicate"}


def all_keys() -> dict[str, str]:
    """One key of every kind."""
    return {
        "identity": IDENTITY.digest(),
        "remote_identity": REMOTE.digest(),
        "sequence": sequence_key(IDENTITY.digest(), [1, 2, 3], 2).hex(),
        "sampled_generation": generation_key(IDENTITY.digest(), REQUEST).hex(),
        "greedy_generation": generation_key(IDENTITY.digest(), dataclasses.replace(REQUEST, temperature=0.0)).hex(),
    }


def test_keys_are_the_golden_ones() -> None:
    assert all_keys() == GOLDEN


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_keys_are_the_same_in_every_process(hash_seed: str) -> None:
    root = Path(__file__).parents[3]
    program = "import json, test_keys; print(json.dumps(test_keys.all_keys()))"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": f"{root}:{root / 'tests' / 'support'}:{Path(__file__).parent}",
    }
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == GOLDEN


# Few values, so that two requests often mean the same.
requests = st.fixed_dictionaries(
    {
        "prompt_ids": st.sampled_from([(3,), (3, 4), (2**31 - 1,)]),
        "stop_ids": st.sampled_from([(), (1, 2), (2, 1, 1)]),
        "max_new_tokens": st.integers(1, 99),
        "temperature": st.sampled_from([0.0, -0.0, 0.5]),
        "top_p": st.sampled_from([0.5, 1.0]),
        "top_k": st.integers(-1, 1),
        "min_p": st.sampled_from([0.0, 0.1]),
        "sampling_seed": st.integers(0, 1),
        "replicate": st.integers(0, 1),
        "grammar": st.sampled_from(["", "start: A", "start: B"]),
    }
)


def meaning(request: GenerateRequest) -> tuple[object, ...]:
    """What a request means, in plain values: two requests share a key exactly when this is the same."""
    noise: tuple[object, ...] = ()
    if request.temperature:
        noise = (request.top_p, max(request.top_k, 0), request.min_p, request.sampling_seed, request.replicate)
    penalties = (request.presence_penalty, request.frequency_penalty, request.repetition_penalty)
    return (request.prompt_ids, frozenset(request.stop_ids), request.temperature, noise, penalties, request.grammar)


@given(requests, requests)
def test_two_requests_share_a_key_exactly_when_they_mean_the_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    one, other = GenerateRequest(**left), GenerateRequest(**right)
    assert (generation_key(DIGEST, one) == generation_key(DIGEST, other)) == (meaning(one) == meaning(other))


sequences = st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 4))


@given(sequences, sequences)
def test_two_sequences_share_a_key_exactly_when_they_are_the_same(
    one: tuple[list[int], int], other: tuple[list[int], int]
) -> None:
    assert (sequence_key(DIGEST, *one) == sequence_key(DIGEST, *other)) == (one == other)


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
