"""Token ids by their ranks: when, what comes back, and what becomes of such segments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewriting_builders import DIGEST, put_each, storage_of
from store_builders import TEACHER, VOCAB, flip_bit, make_record, open_cache

from benchmarks.synthetic import zipf_rows
from cache.disk.columns import IDS_BY_RANK, RANKS, TABLE, SegmentSize, layouts, zarr_objects
from cache.disk.encoding import Encoding, encode_rows
from cache.disk.manifests import FORMAT, RANKED_FORMAT
from cache.disk.ranked_ids import LARGEST_ID, LEAST_ENTRIES, LEAST_USES, by_rank, ids_of
from cache.records import TeacherRecord
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.rewriting import compact

K = 64
ROWS = LEAST_ENTRIES // K


def size_of(ids: np.ndarray, *, encoding: Encoding = "topk-u8") -> SegmentSize:
    rows, k = ids.shape
    return SegmentSize(rows=1, scored_rows=rows, tokens=rows + 1, k=k, chunk_rows=rows, encoding=encoding)


def ranked(ids: np.ndarray, *, encoding: Encoding = "topk-u8") -> tuple[dict[str, Any], bool]:
    columns, size = by_rank({"topk_ids": ids, "other": ids[:, 0]}, size_of(ids, encoding=encoding))
    assert columns["other"] is not None
    return dict(columns), size.ranked


def some_ids(*, distinct: int, rows: int = ROWS, most: int | None = None) -> np.ndarray:
    """Every id of so many that are spread up to `most` comes at least once."""
    rng = np.random.default_rng(0)
    names = rng.permutation(most or distinct)[:distinct]
    drawn = np.concatenate([names, names[rng.zipf(1.3, size=rows * K - distinct) % distinct]])
    return rng.permutation(drawn).astype("<i4").reshape(rows, K)


def test_ranks_go_by_frequency_and_lead_back() -> None:
    ids = some_ids(distinct=700, most=49_152)
    columns, is_ranked = ranked(ids)
    assert is_ranked and "topk_ids" not in columns
    ranks, table = columns[RANKS], columns[IDS_BY_RANK]
    assert (ranks.dtype, table.dtype, table.shape) == (np.uint16, np.int32, (TABLE,))
    np.testing.assert_array_equal(ids_of(ranks, table), ids)
    uses = np.bincount(ranks.ravel(), minlength=700)
    assert (np.diff(uses) <= 0).all() and uses[-1] > 0
    assert (table[700:] == -1).all()


@pytest.mark.parametrize(
    ("ids", "encoding"),
    [
        (some_ids(distinct=700, rows=ROWS - 1), "topk-u8"),
        (some_ids(distinct=LEAST_ENTRIES // LEAST_USES + 1), "topk-u8"),
        (some_ids(distinct=700), "full"),
        (some_ids(distinct=700), "sampled"),
        (some_ids(distinct=700) + LARGEST_ID, "topk-u8"),
        (some_ids(distinct=TABLE, rows=TABLE * LEAST_USES // K), "topk-u8"),
    ],
)
def test_what_would_not_gain_stays_as_it_is(ids: np.ndarray, encoding: Encoding) -> None:
    columns, is_ranked = ranked(ids, encoding=encoding)
    assert not is_ranked and columns["topk_ids"] is ids and RANKS not in columns


def test_the_last_number_that_fits_is_used() -> None:
    ids = some_ids(distinct=TABLE - 1, rows=TABLE * LEAST_USES // K)
    columns, is_ranked = ranked(ids, encoding="topk-f16")
    assert is_ranked and int(columns[RANKS].max()) == TABLE - 2
    np.testing.assert_array_equal(ids_of(columns[RANKS], columns[IDS_BY_RANK]), ids)


def test_they_take_fewer_bytes() -> None:
    rows = zipf_rows(rows=8192, k=K, vocab=8192)
    # Real vocabularies are not sorted by frequency.
    ids = np.random.default_rng(3).permutation(8192).astype("<i4")[rows.ids]
    columns: dict[str, Any] = {"topk_ids": ids, **encode_rows(rows.logprobs.astype(np.float32), encoding="topk-u8")}
    size = size_of(ids)
    before = sum(len(data) for data in _objects(columns, size).values())
    after = sum(len(data) for data in _objects(*by_rank(columns, size)).values())
    assert after < 0.97 * before


def _objects(columns: Any, size: SegmentSize) -> dict[str, bytes]:
    """With zeros in all other columns."""
    rest = {
        name: np.zeros((layout.shape[0], *layout.shape[1:]), dtype=layout.dtype)
        for name, layout in layouts(size).items()
        if name not in columns
    }
    return zarr_objects({**rest, **columns}, size=size)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments are ranked too."""
    monkeypatch.setattr("cache.disk.ranked_ids.LEAST_ENTRIES", 0)
    monkeypatch.setattr("cache.disk.ranked_ids.LEAST_USES", 0)


def some_records() -> list[TeacherRecord]:
    return [make_record([3, 4, number, 5, 6, number, 1], prompt_len=2) for number in range(7, 30)]


def formats(root: Path) -> list[int]:
    return [manifest.format for manifest in open_cache(root)._library.manifests]


def assert_same(found: list[TeacherRecord | None], wanted: list[TeacherRecord], *, k: int = 8) -> None:
    for stored, record in zip(found, wanted, strict=True):
        assert stored is not None and record.topk_ids is not None
        np.testing.assert_array_equal(stored.topk_ids, record.topk_ids[:, :k])


@pytest.mark.parametrize("encoding", ["topk-u8", "topk-f16"])
def test_a_cache_gives_the_same_ids(tmp_path: Path, always: None, encoding: str) -> None:
    records = some_records()
    open_cache(tmp_path).put(records, vocab=VOCAB, encoding=encoding)
    assert formats(tmp_path) == [RANKED_FORMAT]
    cache = open_cache(tmp_path)
    assert_same(cache.get_many([record.key for record in records]), records)
    assert_same(cache.get_many([record.key for record in records], k=3), records, k=3)
    assert cache.verify() == []


def test_segments_of_both_kinds_merge_and_rows_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = put_each(tmp_path, [5, 6])
    monkeypatch.setattr("cache.disk.ranked_ids.LEAST_ENTRIES", 0)
    monkeypatch.setattr("cache.disk.ranked_ids.LEAST_USES", 0)
    others = put_each(tmp_path, [7, 8])
    assert sorted(formats(tmp_path)) == [FORMAT, FORMAT, RANKED_FORMAT, RANKED_FORMAT]
    records = [*plain, *others]
    before = open_cache(tmp_path).get_many([record.key for record in records])
    compact(storage_of(tmp_path), identity=DIGEST)
    after = open_cache(tmp_path)
    assert [m.format for m in after._library.manifests if m.rows == 4] == [RANKED_FORMAT]
    for old, new in zip(before, after.get_many([record.key for record in records]), strict=True):
        assert old is not None and new is not None
        for field in dataclasses.fields(TeacherRecord):
            np.testing.assert_array_equal(getattr(old, field.name), getattr(new, field.name))


def test_an_archive_of_them_is_proved_and_read(tmp_path: Path, always: None) -> None:
    records = put_each(tmp_path / "here", [5, 6])
    export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    import_archive(tmp_path / "there", tmp_path / "a.tar")
    assert formats(tmp_path / "there") == [RANKED_FORMAT, RANKED_FORMAT]
    assert_same(open_cache(tmp_path / "there").get_many([record.key for record in records]), records)
    assert open_cache(tmp_path / "there").verify() == []


@pytest.mark.parametrize("name", [RANKS, IDS_BY_RANK])
def test_damage_to_either_array_is_a_miss_and_never_other_ids(tmp_path: Path, always: None, name: str) -> None:
    records = some_records()
    open_cache(tmp_path).put(records, vocab=VOCAB)
    (shard,) = (path for path in (tmp_path / TEACHER.digest()).glob(f"segments/*/{name}/c/**/*") if path.is_file())
    flip_bit(shard, at=0.4)
    assert open_cache(tmp_path).get_many([record.key for record in records]) == [None] * len(records)
