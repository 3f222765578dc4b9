"""Rows move as they are stored."""

from __future__ import annotations

from pathlib import Path

from rewriting_builders import (
    everything,
    merge,
    names,
    put_each,
    requests_of,
    sweep,
)
from store_builders import open_cache

PROMPTS = list(range(5, 11))


def test_rows_that_move_twice_keep_their_ids(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS[:3])
    before = everything(open_cache(tmp_path), requests_of(PROMPTS), [record.key for record in records])
    merge(tmp_path)
    records += put_each(tmp_path, PROMPTS[3:])
    merge(tmp_path)
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    after = everything(open_cache(tmp_path), requests_of(PROMPTS), [record.key for record in records[:3]])
    assert after["count"] == 6
    cache = open_cache(tmp_path)
    assert cache.view([record.key for record in records[:3]], dataset="d", k=2).digest
    assert after["records"][:3] == before["records"][:3]
