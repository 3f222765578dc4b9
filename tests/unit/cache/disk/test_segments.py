"""A segment is read in chunks, and each of them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_builders import Stored, make_entries, make_segment, some_records
from store_builders import VOCAB

from cache.blocks import read_block
from cache.disk.key_objects import KEY
from cache.keys import KEY_BYTES
from cache.records import tail_logmass


def test_a_key_that_ends_in_zeros_stays_whole(stored: Stored) -> None:
    entries = make_entries([(0, 1)], stored)
    short = b"\1" * (KEY_BYTES - 3) + bytes(3)
    entries["key"] = np.frombuffer(short, dtype=KEY)
    assert read_block([stored[0][0]], entries, k=0).records()[0].key == short


def test_a_chunk_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def held(*arguments: object, **named: object) -> object:
        decoded.append(1)
        return held_rows(*arguments, **named)  # type: ignore[arg-type]

    from cache.disk.encoding import held_rows

    monkeypatch.setattr("cache.disk.columns.CHUNK_ROWS", 16)
    monkeypatch.setattr("cache.disk.segments.held_rows", held)
    records = some_records(np.random.default_rng(1), count=20, k=8)
    stored = [(make_segment(tmp_path, records, encoding="topk-u8"), records)]
    entries = make_entries([(0, row) for row in range(20)], stored)
    chunks = -(-sum(record.response_len for record in records if record.k) // 16)
    for _ in range(3):
        read_block([stored[0][0]], entries, k=None)
    assert len(decoded) == chunks > 3


def test_the_tail_of_a_cut_row_is_added_up(stored: Stored) -> None:
    segment, records = stored[0]
    block = read_block([segment], make_entries([(0, 0)], [(segment, records)]), k=2)
    assert block.topk_logprobs is not None and block.tail_logmass is not None
    np.testing.assert_allclose(block.tail_logmass, tail_logmass(block.topk_logprobs, vocab=VOCAB), rtol=1e-4)
