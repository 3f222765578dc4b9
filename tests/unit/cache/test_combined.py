"""Views that span the caches of several teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from combined_builders import OTHER, mixture
from training_jobs import IDENTITY, make_job

from cache.combined import CombinedCache, CombinedView, Part
from cache.mixing import mixed
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import CacheError
from student_train.job import TrainJob


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def train(job: TrainJob) -> CombinedView:
    return mixture(job.cache_root, CacheView.load(job.train_view))


def some_of(view: CacheView, rows: list[int]) -> CacheView:
    names = ("keys", "row_ids", "segment", "row", "prompt_len", "lengths", "finish")
    return replace(view, **{name: getattr(view, name)[rows] for name in names})


def test_rows_are_mixed_as_they_are_read(job: TrainJob, train: CombinedView) -> None:
    first, second = train.parts
    rows = [np.array([5, 0, 11]), np.array([], dtype=np.int64), np.array([3])]
    told = list(CombinedCache(job.cache_root, [train]).iter_blocks(train.rows, rows, prefetch=2))
    one = list(TeacherCache.open(job.cache_root, IDENTITY).iter_blocks(first.view, rows))
    two = list(TeacherCache.open(job.cache_root, OTHER).iter_blocks(second.view, rows))
    assert [len(block) for block in told] == [3, 0, 1]
    for block, ours, theirs in zip(told, one, two, strict=True):
        for record, mine, other in zip(block, ours, theirs, strict=True):
            expected = mixed([mine, other], shares=[0.75, 0.25])
            assert record.key == mine.key and np.array_equal(record.token_ids, mine.token_ids)
            assert np.array_equal(record.topk_ids, expected.topk_ids)  # type: ignore[arg-type]
            assert np.array_equal(record.topk_logprobs, expected.topk_logprobs)  # type: ignore[arg-type]


def test_what_stands_for_it_has_its_lengths_and_a_name_for_all_of_it(job: TrainJob, train: CombinedView) -> None:
    view = CacheView.load(job.train_view)
    for name in ("lengths", "prompt_len", "keys", "finish"):
        assert np.array_equal(getattr(train.rows, name), getattr(view, name))
    assert (train.rows.dataset, train.rows.k) == ("train", 8)
    others = [
        mixture(job.cache_root, view, shares=(0.5, 0.5)),
        CombinedView("train", train.parts[::-1]),
        CombinedView("dev", train.parts),
    ]
    assert len({each.digest for each in (train, *others)} | {view.digest}) == 5
    assert mixture(job.cache_root, view).digest == train.digest


def test_a_row_of_one_teacher_is_read_as_it_is_stored(job: TrainJob, train: CombinedView) -> None:
    first, second = train.parts
    routed = CombinedView(
        "train",
        (
            Part(IDENTITY, 1.0, some_of(first.view, [0, 2]), np.array([0, 2])),
            Part(OTHER, 1.0, some_of(second.view, [1]), np.array([1])),
        ),
    )
    (told,) = CombinedCache(job.cache_root, [routed]).iter_blocks(routed.rows, [np.array([2, 1, 0])])
    assert [record.key for record in told] == [bytes(routed.rows.keys[row]) for row in (2, 1, 0)]
    (own,) = TeacherCache.open(job.cache_root, OTHER).iter_blocks(second.view, [np.array([1])])
    assert np.array_equal(told[1].topk_logprobs, own[0].topk_logprobs)  # type: ignore[arg-type]


def test_views_of_one_cache_stand_beside_it(job: TrainJob, train: CombinedView) -> None:
    view, cache = CacheView.load(job.train_view), TeacherCache.open(job.cache_root, IDENTITY)
    (told,) = CombinedCache(job.cache_root, [train], otherwise=cache).iter_blocks(view, [np.array([4])])
    assert told[0].key == bytes(view.keys[4])
    with pytest.raises(CacheError, match="train is none of the views that were combined"):
        CombinedCache(job.cache_root, [train]).iter_blocks(view, [np.array([4])])


def test_it_comes_back_as_it_was_saved(train: CombinedView, tmp_path: Path) -> None:
    path = tmp_path / "train.combined"
    train.save(path)
    again = CombinedView.load(path)
    assert again.digest == train.digest and [part.share for part in again.parts] == [0.75, 0.25]


def test_what_is_damaged_or_not_there_is_said_in_one_line(train: CombinedView, tmp_path: Path) -> None:
    path = tmp_path / "train.combined"
    with pytest.raises(CacheError, match=r"no combined view can be read there .*: run the fill again"):
        CombinedView.load(path)
    path.write_bytes(b"PK\x03\x04 not a view")
    with pytest.raises(CacheError, match=r"no combined view can be read there .*: run the fill"):
        CombinedView.load(path)
    train.save(path)
    changed = replace(train.parts[0], share=0.5), replace(train.parts[1], share=0.5)
    other = CombinedView("train", changed)
    object.__setattr__(other, "rows", train.rows)
    other.save(path)
    with pytest.raises(CacheError, match="differs from its digest"):
        CombinedView.load(path)


def test_parts_that_make_no_rows_are_refused(train: CombinedView) -> None:
    first, second = train.parts
    with pytest.raises(CacheError, match=r"shares of a row sum to 0\.75, not to 1"):
        CombinedView("train", (first,))
    with pytest.raises(CacheError, match="a row of train has no place"):
        CombinedView("train", (first, replace(second, places=second.places[:-1])))
    with pytest.raises(CacheError, match="teachers told of sequences that differ"):
        CombinedView("train", (first, replace(second, places=second.places[::-1].copy())))
