"""The binary body: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from teacher_server import FakeTeacher
from teacher_server.http.wire import MAGIC, Answered, WireError, decode_records, encode_records, pack, unpack

IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)
DIGEST = IDENTITY.digest()
TEACHER = FakeTeacher(IDENTITY, vocab=151, eos_id=2)


def answers(*, k: int, prompts: int = 4) -> list[Answered[TeacherRecord]]:
    """Written answers and one scored sequence, with a failure among them."""
    asked = [GenerateRequest((1, 5 + at), (2,), 6 + at) for at in range(prompts)]
    rows = [Answered(outcome, cached=at % 2 == 1) for at, outcome in TEACHER.generate(asked, k=k)]
    if k:
        rows += [Answered(outcome) for _, outcome in TEACHER.score([ScoreRequest((1, 9, 5, 6), 2)], k=k)]
    return [*rows[:2], Answered(Failure("the prompt is empty – said plainly")), *rows[2:]]


def same(one: Answered[TeacherRecord], other: Answered[TeacherRecord]) -> bool:
    if isinstance(one.outcome, Failure) or isinstance(other.outcome, Failure):
        return one.outcome == other.outcome and one.cached == other.cached
    names = [name for name in TeacherRecord.__slots__ if name != "key"]
    pairs = [(getattr(one.outcome, name), getattr(other.outcome, name)) for name in names]
    return one.outcome.key == other.outcome.key and all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("k", [0, 1, 8, 151])
def test_what_goes_in_comes_out(k: int) -> None:
    sent = answers(k=k)
    received = decode_records(encode_records(sent, identity=DIGEST), identity=DIGEST)
    assert all(same(one, other) for one, other in zip(sent, received, strict=True))


@pytest.mark.parametrize("rows", [[], [Answered(Failure("no"), cached=True)]])
def test_a_body_may_hold_no_record_at_all(rows: list[Answered[TeacherRecord]]) -> None:
    received = decode_records(encode_records(rows, identity=DIGEST), identity=DIGEST)
    assert all(same(one, other) for one, other in zip(rows, received, strict=True))


def test_a_body_is_as_small_as_its_arrays() -> None:
    sent = answers(k=64, prompts=64)
    tokens = sum(each.outcome.response_len for each in sent if isinstance(each.outcome, TeacherRecord))
    assert len(encode_records(sent, identity=DIGEST)) < tokens * (64 * 8 + 40)


def test_another_teacher_s_answer_is_refused() -> None:
    body = encode_records(answers(k=2), identity="f" * 64)
    with pytest.raises(WireError, match="ffffffffffff answered and not"):
        decode_records(body, identity=DIGEST)


def sealed(body: bytes) -> bytes:
    """A body with a right checksum, whatever it says."""
    return body + struct.pack("<I", google_crc32c.value(body))


@given(st.data())
def test_a_flipped_bit_is_noticed(data: st.DataObject) -> None:
    body = bytearray(encode_records(answers(k=3), identity=DIGEST))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        decode_records(bytes(body), identity=DIGEST)


@given(st.data())
def test_a_liar_who_knows_the_checksum_is_refused_or_understood(data: st.DataObject) -> None:
    body = bytearray(encode_records(answers(k=3), identity=DIGEST)[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for liar in (bytes(body), bytes(body[:cut])):
        try:
            rows = decode_records(sealed(liar), identity=DIGEST)
        except WireError:
            continue
        assert all(isinstance(row.outcome, Failure | TeacherRecord) for row in rows)


@given(st.binary(max_size=200))
def test_noise_is_not_an_answer(noise: bytes) -> None:
    for body in (noise, MAGIC + noise, sealed(MAGIC + noise)):
        with pytest.raises(WireError):
            unpack(body)


def changed(body: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same arrays under another header."""
    _, arrays = unpack(body)
    (length,) = struct.unpack_from("<I", body, len(MAGIC))
    said = json.loads(body[len(MAGIC) + 4 : len(MAGIC) + 4 + length])
    change(said)
    head = json.dumps(said).encode()
    padded = MAGIC + struct.pack("<I", len(head)) + head
    rest = pack({}, arrays)
    (other,) = struct.unpack_from("<I", rest, len(MAGIC))
    begin = len(MAGIC) + 4 + other
    return sealed(padded + bytes(-len(padded) % 8) + rest[begin + -begin % 8 : -4])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: head.update(kind="signals"), "of kind 'signals'"),
        (lambda head: head.pop("failures"), "do not fit together"),
        (lambda head: head["arrays"][0].__setitem__(1, "O"), "header cannot be read"),
        (lambda head: head["arrays"][0].__setitem__(2, [2**20]), "ends within its array failed"),
        (lambda head: head["arrays"][0].__setitem__(2, [2**40]), "header cannot be read"),
        (lambda head: head["arrays"][0].__setitem__(2, [-1]), "header cannot be read"),
        (lambda head: head["arrays"][0].__setitem__(2, [True]), "header cannot be read"),
        (lambda head: head["arrays"][0].__setitem__(2, [2**63, 0]), "header cannot be read"),
        (lambda head: head["failures"].update({"2": 5}), "a reason that is a int"),
        (lambda head: head["arrays"].pop(), "goes on behind its last array"),
        (lambda head: head["arrays"][0].__setitem__(0, "lost"), "do not fit together"),
        (lambda head: head["arrays"].extend([["more", "u1", [0]]] * 40), "more than 32"),
    ],
)
def test_a_header_that_lies_is_refused(change: Callable[[dict[str, Any]], None], said: str) -> None:
    with pytest.raises(WireError, match=said):
        decode_records(changed(encode_records(answers(k=2), identity=DIGEST), change), identity=DIGEST)


def test_more_rows_of_nothing_than_anybody_can_count_are_refused() -> None:
    _, arrays = unpack(encode_records([], identity=DIGEST))
    for name in ("failed", "cached", "finish", "origin", "prompt_len", "offsets"):
        arrays[name] = np.empty((2**31 - 2 + (name == "offsets"), 0), dtype=arrays[name].dtype)
    body = pack({"kind": "records", "identity": DIGEST, "failures": {}}, arrays)
    with pytest.raises(WireError, match="failed has 2 dimensions"):
        decode_records(body, identity=DIGEST)


def test_the_honest_header_survives_the_change_of_nothing() -> None:
    body = encode_records(answers(k=2), identity=DIGEST)
    assert len(decode_records(changed(body, lambda head: None), identity=DIGEST)) == 6


def test_rows_that_are_no_sound_record_are_refused() -> None:
    sent = answers(k=2)
    record = sent[0].outcome
    assert isinstance(record, TeacherRecord) and record.topk_logprobs is not None
    record.topk_logprobs[0, 0] = np.nan
    with pytest.raises(WireError, match="NaN"):
        decode_records(encode_records(sent, identity=DIGEST), identity=DIGEST)
