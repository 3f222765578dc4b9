"""Chunks between common boundaries, vocabularies by bytes, and rows of the teacher under the student's ids."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from student_train.losses.alignment import (
    UNMAPPED,
    Coverage,
    common_chunks,
    coverage_of,
    map_rows,
    token_ends,
    vocabulary_map,
    with_end,
)

TEXTS = st.text(alphabet="ab é€😀\n", min_size=1, max_size=20).map(str.encode)


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[bytes]]:
    """A text and two ways to cut its bytes, in the middle of characters too, some pieces of them empty."""
    text = draw(TEXTS)
    cut = [sorted([0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=12))]) for _ in range(2)]
    first, second = ([text[a:b] for a, b in pairwise(at)] for at in cut)
    return text, first, second


@given(cuttings())
def test_a_chunk_is_the_same_bytes_on_both_sides_and_cannot_be_made_smaller(
    case: tuple[bytes, list[bytes], list[bytes]],
) -> None:
    text, teacher, student = case
    ends = [token_ends(each, text=text) for each in (teacher, student)]
    assert ends[0] is not None and ends[1] is not None
    chunks = common_chunks(ends[0], ends[1])
    whole = b""
    for ours, theirs in zip(
        pairwise(chunks.teacher),
        pairwise(chunks.student),
        strict=True,
    ):
        left, right = b"".join(teacher[slice(*ours)]), b"".join(student[slice(*theirs)])
        assert left == right
        assert ours[1] > ours[0] and theirs[1] > theirs[0]
        whole += left
        # No place inside is a boundary of both, unless nothing lies between two of them.
        inner = [
            set(np.cumsum([len(t) for t in part])[:-1].tolist())
            for part in (teacher[slice(*ours)], student[slice(*theirs)])
        ]
        assert not {at for at in inner[0] & inner[1] if 0 < at < len(left)}
    assert whole == text
    covered = coverage_of(chunks, teacher_ends=ends[0], text_bytes=len(text))
    assert covered.chunked == covered.total == len(text)
    assert covered.single == sum(
        len(b"".join(teacher[a:b])) for (a, b), one in zip(pairwise(chunks.teacher), chunks.single, strict=True) if one
    )


@given(cuttings())
def test_equal_cuttings_are_chunks_of_one_token_each(case: tuple[bytes, list[bytes], list[bytes]]) -> None:
    text, pieces, _ = case
    ends = token_ends(pieces, text=text)
    assert ends is not None
    chunks = common_chunks(ends, ends)
    np.testing.assert_array_equal(chunks.teacher, np.arange(len(pieces) + 1))
    np.testing.assert_array_equal(chunks.student, chunks.teacher)
    assert chunks.single.all()


def test_the_marks_of_the_end_are_a_chunk_of_their_own() -> None:
    teacher, student = (
        with_end(np.array([1, 4], np.int32), text_bytes=4),
        with_end(np.array([4], np.int32), text_bytes=4),
    )
    chunks = common_chunks(teacher, student)
    assert chunks.teacher.tolist() == [0, 2, 3] and chunks.student.tolist() == [0, 1, 2]
    assert chunks.single.tolist() == [False, True]
    assert coverage_of(chunks, teacher_ends=teacher, text_bytes=4) == Coverage(4, 4, 0, texts=1)


def test_tokens_behind_the_last_common_boundary_belong_to_no_chunk() -> None:
    chunks = common_chunks(np.array([2, 5]), np.array([2, 4]))
    assert chunks.teacher.tolist() == chunks.student.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        ([b"a", b"\xc3", b"\xa9"], [1, 2, 3]),
        ([b" a", "é".encode()], [1, 3]),  # the blank before the first word
        ([b" ", b"a", "é".encode()], [0, 1, 3]),
        ([b"a", None, "é".encode()], None),
        ([b"b", "é".encode()], None),
    ],
)
def test_tokens_end_where_their_bytes_do(tokens: list[bytes | None], ends: list[int] | None) -> None:
    found = token_ends(tokens, text="aé".encode())
    assert (None if found is None else found.tolist()) == ends


def test_coverages_add_up() -> None:
    both = Coverage(10, 10, 4, texts=1) + Coverage(10, 5, 4, texts=1) + Coverage(texts=1, lost=1)
    assert both == Coverage(20, 15, 8, texts=3, lost=1)
    assert both.single_share == 0.4 and both.chunked_share == 0.75
    assert Coverage().single_share == Coverage().chunked_share == 0.0


def test_vocabularies_meet_by_bytes_and_ends_by_their_role() -> None:
    teacher = [b"a", b" b", None, b"\xe2", b"c", None, b""]
    student = [None, b"\xe2", b" b", b"a", b"a", b""]
    found = vocabulary_map(teacher, student, ends=(5,), end=0)
    assert found.tolist() == [3, 2, UNMAPPED, 1, UNMAPPED, 0, UNMAPPED]
    assert vocabulary_map(teacher, student, ends=(5,)).tolist()[5] == UNMAPPED


def rows(seed: int = 0, *, vocab: int = 9, k: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logits = draw.standard_normal((6, vocab))
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    order = np.argsort(-logprobs, axis=1)
    top, rest = (np.take_along_axis(logprobs, part, axis=1) for part in (order[:, :k], order[:, k:]))
    return order[:, :k].astype(np.int32), top.astype(np.float32), np.logaddexp.reduce(rest, axis=1).astype(np.float32)


def test_rows_of_known_tokens_come_back_bit_for_bit() -> None:
    ids, logprobs, tail = rows()
    turned = np.arange(9, dtype=np.int32)[::-1].copy()
    mapped = map_rows(turned, ids=ids, logprobs=logprobs, tail_logmass=tail)
    np.testing.assert_array_equal(mapped.ids, 8 - ids)
    np.testing.assert_array_equal(mapped.logprobs, logprobs)
    np.testing.assert_array_equal(mapped.tail_logmass, tail)
    assert mapped.padding is None


@given(st.lists(st.integers(-1, 4), min_size=8, max_size=8), st.integers(0, 99))
def test_mapped_rows_hold_what_an_independent_sum_holds(vocabulary: list[int], seed: int) -> None:
    # Ids 0 to 8 of the teacher, of which the last is padding of its matrix; several may fall together.
    ids, logprobs, tail = rows(seed)
    mapped = map_rows(np.array(vocabulary, np.int32), ids=ids, logprobs=logprobs, tail_logmass=tail)
    padding = np.zeros(mapped.ids.shape, bool) if mapped.padding is None else mapped.padding
    for row in range(len(ids)):
        expected: dict[int, float] = {}
        rest = np.exp(float(tail[row]))
        for number, logprob in zip(ids[row].tolist(), logprobs[row].tolist(), strict=True):
            target = vocabulary[number] if number < 8 else -1
            if target < 0:
                rest += np.exp(logprob)
            else:
                expected[target] = expected.get(target, 0.0) + np.exp(logprob)
        kept = ~padding[row]
        found = dict(zip(mapped.ids[row][kept].tolist(), np.exp(mapped.logprobs[row][kept]).tolist(), strict=True))
        assert found == pytest.approx(expected, rel=1e-5)
        assert np.exp(mapped.tail_logmass[row]) == pytest.approx(rest, rel=1e-5)
        assert np.isneginf(mapped.logprobs[row][padding[row]]).all() and (mapped.ids[row][padding[row]] == -1).all()
