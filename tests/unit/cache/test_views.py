from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_builders import VOCAB, flip_bit, make_record, open_cache

from cache.batches import global_batches
from cache.views import CacheView
from configs.errors import CacheError


def make_view(lengths: list[int], *, seed: int = 0) -> CacheView:
    count = len(lengths)
    return CacheView(
        identity="a" * 64,
        dataset="train",
        k=4,
        segments=("one", "two"),
        keys=((np.arange(count * 32) * (seed + 7)) % 251).astype(np.uint8).reshape(count, 32),
        row_ids=np.arange(count, dtype=np.uint64) + np.uint64(2**63),
        segment=(np.arange(count) % 2).astype(np.int32),
        row=np.arange(count, dtype=np.int64),
        prompt_len=np.ones(count, dtype=np.int32),
        lengths=np.array(lengths, dtype=np.int32),
        finish=np.zeros(count, dtype=np.uint8),
    )


def test_a_saved_view_is_the_same_view(tmp_path: Path) -> None:
    view = make_view([3, 5, 8])
    view.save(tmp_path / "deep" / "train.view")
    loaded = CacheView.load(tmp_path / "deep" / "train.view")
    assert loaded.digest == view.digest
    assert (len(loaded), loaded.tokens, loaded.response_tokens) == (3, 16, 13)
    assert (loaded.identity, loaded.dataset, loaded.k, loaded.segments) == ("a" * 64, "train", 4, ("one", "two"))
    for name in ("keys", "row_ids", "segment", "row", "prompt_len", "lengths", "finish"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(view, name))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["train.view"]
    assert pickle.loads(pickle.dumps(view)).digest == view.digest


def test_a_saved_view_says_of_what_kind_its_rows_are() -> None:
    sequences = make_view([3, 5])
    signals = dataclasses.replace(sequences, signals=True)
    for view in (sequences, signals):
        assert CacheView.from_bytes(view.to_bytes(), name="v").signals is view.signals


def test_an_empty_view_is_a_view(tmp_path: Path) -> None:
    view = open_cache(tmp_path).view([], dataset="train", k=4)
    view.save(tmp_path / "v")
    assert CacheView.load(tmp_path / "v").digest == view.digest
    assert len(view) == view.tokens == 0
    assert global_batches(view, seed=0, epoch=0, tokens_per_batch=10) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "b" * 64},
        {"dataset": "dev"},
        {"k": 5},
        {"signals": True},
        {"lengths": np.array([3, 5, 9], dtype=np.int32)},
        {"prompt_len": np.array([1, 1, 2], dtype=np.int32)},
        {"row_ids": np.array([0, 2, 1], dtype=np.uint64)},
        {"finish": np.array([0, 0, 1], dtype=np.uint8)},
        {"keys": np.zeros((3, 32), dtype=np.uint8)},
    ],
)
def test_what_a_view_says_is_in_its_digest(change: dict[str, Any]) -> None:
    view = make_view([3, 5, 8])
    assert dataclasses.replace(view, **change).digest != view.digest


@pytest.mark.parametrize(
    "change",
    [
        {"segments": ("one", "three")},
        {"row": np.array([0, 2, 1], dtype=np.int64)},
        {"segment": np.array([0, 0, 0], dtype=np.int32)},
    ],
)
def test_where_rows_stand_is_not_in_the_digest_but_guarded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    view = make_view([3, 5, 8])
    moved = dataclasses.replace(view, **change)
    assert moved.digest == view.digest
    monkeypatch.setattr(CacheView, "_places_digest", lambda _: "forged")
    forged = moved.to_bytes()
    monkeypatch.undo()
    with pytest.raises(CacheError, match="differs from its digest"):
        CacheView.from_bytes(forged, name="v")


def test_a_view_cannot_be_changed() -> None:
    view = make_view([3, 5])
    with pytest.raises(ValueError, match="read-only"):
        view.lengths[0] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.k = 9  # type: ignore[misc]


def test_a_changed_file_never_loads_as_another_view(tmp_path: Path) -> None:
    view, path = make_view([3, 5, 8]), tmp_path / "v"
    view.save(path)
    whole = path.read_bytes()
    for step in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip_bit(path, at=step / len(whole), bit=step % 8)
        try:
            assert CacheView.load(path).digest == view.digest
        except CacheError:
            continue
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CacheError, match="delete it"):
            CacheView.load(path)
    with pytest.raises(CacheError, match="no such view"):
        CacheView.load(tmp_path / "none")


def test_keys_are_kept_once_in_their_order(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    records = [make_record([3, 4, at], prompt_len=2) for at in range(5, 9)]
    for part in (records[:2], records[2:]):
        cache.put(part, vocab=VOCAB)
    keys = [records[at].key for at in (2, 0, 2, 3, 0)]
    view = cache.view(keys, dataset="train", k=4)
    assert [bytes(key) for key in view.keys] == [records[at].key for at in (2, 0, 3)]
    (block,) = cache.iter_blocks(view, [np.array([2, 0])])
    assert [record.key for record in block] == [records[3].key, records[2].key]
    assert all(record.k == 4 for record in block)
