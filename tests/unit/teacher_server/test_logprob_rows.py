"""Rows are read by place, never by rank, and a container of another layout is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flat_containers import Output, V, container, logprobs

from cache.records import ScoreRequest, TeacherRecord, validate_record
from configs.errors import EngineError
from teacher_server.answers import answer
from teacher_server.flat_logprobs import FlatRows
from teacher_server.logprob_rows import SPARE_IDS, topk_rows, wanted_ids
from teacher_server.requests import Asked


def test_rows_are_read_by_place_wherever_the_target_ranks() -> None:
    table = logprobs(3)
    order = np.argsort(-table, axis=1)
    targets = np.array([order[0, 0], order[1, 2], order[2, -1]], dtype=np.int32)
    rows = topk_rows(FlatRows(container(table, targets.tolist(), k=4)), targets=targets, k=4, vocab=V)
    assert rows is not None
    assert rows.topk_ids.tolist() == order[:, :4].tolist()
    np.testing.assert_array_equal(rows.topk_logprobs, np.take_along_axis(table, order[:, :4], axis=1))
    np.testing.assert_array_equal(rows.target_logprobs, table[np.arange(3), targets])
    assert rows.target_ranks.tolist() == [1, 3, V]
    assert rows.topk_ids.dtype == np.int32 and rows.topk_logprobs.dtype == np.float32


def test_ids_beyond_the_tokenizer_are_dropped_from_heads_and_ranks() -> None:
    table, known = logprobs(5, seed=3), 9
    best_known = np.argsort(-table[:, :known], axis=1)
    targets = best_known[:, 3].astype(np.int32)
    flat = container(table, targets.tolist(), k=4 + V - known)
    assert max(flat.token_ids) >= known
    rows = topk_rows(FlatRows(flat), targets=targets, k=4, vocab=known)
    assert rows is not None
    assert rows.topk_ids.tolist() == best_known[:, :4].tolist()
    np.testing.assert_array_equal(rows.topk_logprobs, np.take_along_axis(table, best_known[:, :4], axis=1))
    assert rows.target_ranks.tolist() == [4] * 5


def test_a_few_more_ids_are_asked_for_when_the_matrix_is_wider_than_the_tokenizer() -> None:
    assert wanted_ids(64, vocab=49152, matrix_rows=49152) == 64
    assert wanted_ids(64, vocab=151665, matrix_rows=152064) == 64 + SPARE_IDS
    assert wanted_ids(64, vocab=32000, matrix_rows=32002) == 66
    assert wanted_ids(150, vocab=150, matrix_rows=300) == 300
    assert wanted_ids(0, vocab=150, matrix_rows=160) == 0


def test_a_row_with_too_few_known_ids_gives_no_rows() -> None:
    table = np.tile(np.linspace(-9, -1, V, dtype=np.float32), (2, 1))
    targets = np.array([0, 1], dtype=np.int32)
    assert topk_rows(FlatRows(container(table, [0, 1], k=4)), targets=targets, k=2, vocab=V - 3) is None


def test_a_prompt_is_skipped() -> None:
    given = (4, 7, 1, 0, 9)
    table = logprobs(4)
    flat = container(table, list(given[1:]), k=3, empty_first=True)
    asked = Asked(ScoreRequest(given, 2), 3)
    record = answer(asked, Output(prompt_logprobs=flat), identity_digest="x", vocab=V)  # type: ignore[arg-type]
    assert isinstance(record, TeacherRecord)
    validate_record(record)
    np.testing.assert_array_equal(record.target_logprobs, table[[1, 2, 3], [1, 0, 9]])


@pytest.mark.parametrize("damage", ["shifted", "short", "ragged", "narrow"])
def test_a_container_of_another_layout_is_an_error(damage: str) -> None:
    targets = [3, 4, 5]
    flat = container(logprobs(3), targets, k=4)
    wanted = 4
    if damage == "shifted":
        targets = [4, 5, 3]
    elif damage == "short":
        targets = [3, 4, 5, 6]
    elif damage == "ragged":
        del flat.token_ids[-1], flat.logprobs[-1], flat.ranks[-1]
    else:
        wanted = 5
    with pytest.raises(EngineError, match=r"log-probability rows|rows of log-probabilities"):
        topk_rows(FlatRows(flat), targets=np.array(targets, dtype=np.int32), k=wanted, vocab=V)
