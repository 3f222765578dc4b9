"""The head: what of the matrix counts, and how many rows of logits exist at once."""

from __future__ import annotations

import pytest
import torch

from configs.errors import ModelError
from student_train.losses.head import CPU_CHUNK_BYTES, LEAST_CHUNK_BYTES, Head, chunk_budget, exact_dtype


def test_a_bare_matrix_is_a_head_of_all_its_rows() -> None:
    matrix = torch.randn(64, 8)
    head = Head.of(matrix)
    assert head.weight is matrix and head.tokens == 64 and head.softcap is None
    assert Head.of(head) is head


def test_padding_has_no_logits() -> None:
    matrix, hidden = torch.randn(64, 8), torch.randn(3, 8)
    logits = Head(matrix, 50).raw_logits(hidden)
    assert torch.equal(logits, hidden @ matrix[:50].T)


@pytest.mark.parametrize("vocab", [0, 65])
def test_a_vocabulary_that_the_matrix_has_not_is_refused(vocab: int) -> None:
    said = f"vocabulary of {vocab} tokens but the student's head has 64 rows"
    with pytest.raises(ModelError, match=said):
        Head(torch.zeros(64, 8), vocab)


def test_chunks_hold_as_many_rows_as_fit_and_at_least_one() -> None:
    matrix, hidden = torch.zeros(64, 8), torch.zeros(23, 8)
    assert list(Head(matrix, 50, None, 4 * 50 * 9 + 3).chunks(hidden)) == [slice(0, 9), slice(9, 18), slice(18, 27)]
    assert len(list(Head(matrix, chunk_bytes=1).chunks(hidden))) == 23
    assert list(Head(matrix).chunks(hidden)) == [slice(0, CPU_CHUNK_BYTES // 256)]
    assert list(Head(matrix).chunks(hidden[:0])) == []


def test_losses_are_computed_in_at_least_float32() -> None:
    kinds = {torch.bfloat16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    for given, computed in kinds.items():
        hidden = torch.zeros(2, 8, dtype=given)
        assert exact_dtype(hidden) == Head(torch.zeros(5, 8, dtype=given)).raw_logits(hidden).dtype == computed


def test_the_chunk_follows_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunk_budget(torch.device("cpu")) == CPU_CHUNK_BYTES
    gib = 2**30
    reserved = {"free": 0, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (reserved["free"], 64 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: reserved["allocated"])
    gpu = torch.device("cuda", 0)
    for free, held, used, expected in (
        (40, 0, 0, gib),  # plenty: a 64th of the whole
        (0, 60, 20, gib),  # all in torch's hands, most of it idle
        (1, 63, 60, gib // 2),  # scarce: an eighth of what is left
        (0, 64, 64, LEAST_CHUNK_BYTES),
    ):
        reserved.update(free=free * gib, reserved=held * gib, allocated=used * gib)
        assert chunk_budget(gpu) == expected
