"""A segment takes the place of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rewriting_builders import (
    DIGEST,
    everything,
    merge,
    names,
    put_each,
    requests_of,
    storage_of,
    sweep,
)
from store_builders import open_cache

from cache.upkeep import rewriting
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import RewriteReport

PROMPTS = list(range(5, 11))


def test_two_merges_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = put_each(tmp_path, PROMPTS)
    requests, keys = requests_of(PROMPTS), [record.key for record in records]
    before = everything(open_cache(tmp_path), requests, keys)
    reports: list[RewriteReport] = []
    replace = rewriting.replace_segments

    def overtaken(*args: object, **named: object) -> object:
        monkeypatch.setattr(rewriting, "replace_segments", replace)
        reports.append(merge(tmp_path))
        return replace(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rewriting, "replace_segments", overtaken)
    reports.append(merge(tmp_path))
    assert [len(report.merged) for report in reports] == [1, 0], "the second takes its segment back"
    sweep(tmp_path)
    assert len(names(tmp_path, "segments")) == 1
    assert everything(open_cache(tmp_path), requests, keys) == before


def test_a_view_outlives_the_segments_that_it_was_made_of(tmp_path: Path) -> None:
    records = put_each(tmp_path, PROMPTS)
    reader = open_cache(tmp_path)
    view = reader.view([record.key for record in records], dataset="d", k=8)
    blocks = reader.iter_blocks(view, [np.arange(3), np.arange(3, 6)])
    first = next(blocks)
    merge(tmp_path)
    report = collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=-1.0)
    assert report.kept == (), "the view follows its rows"
    second = next(blocks)
    assert [record.key for record in first + second] == [record.key for record in records]
    sweep(tmp_path)
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.arange(6)])
    for now, then in zip(block, first + second, strict=True):
        np.testing.assert_array_equal(now.topk_logprobs, then.topk_logprobs)
