"""Files of views are opened by their endings, and what reads them reads everything else of the cache too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from combined_builders import mixture
from narrowed_builders import narrowed_view
from training_jobs import IDENTITY, make_job

from cache.opening import cached_rows, open_rows, open_view, reader_of, rows_of
from cache.store import TeacherCache
from cache.views import CacheView
from student_train.job import TrainJob


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


def test_each_kind_comes_back_as_it_was_saved(job: TrainJob, tmp_path: Path) -> None:
    plain = CacheView.load(job.train_view)
    mixed, narrow = mixture(job.cache_root, plain), narrowed_view(job, job.train_view)
    mixed.save(tmp_path / "train.combined")
    narrow.save(tmp_path / "train.narrowed")
    views = [
        open_view(path) for path in (job.train_view, *(tmp_path / f"train.{end}" for end in ("combined", "narrowed")))
    ]
    assert [rows_of(view).digest for view in views] == [plain.digest, mixed.rows.digest, narrow.rows.digest]
    assert [[each.digest for each in cached_rows(view)] for view in views] == [
        [plain.digest], [part.view.digest for part in mixed.parts], [plain.digest],
    ]  # fmt: skip
    reader = reader_of(views, root=job.cache_root, identity=IDENTITY)
    for view in views:
        ((told,),) = reader.iter_blocks(rows_of(view), [np.array([1])])
        assert told.key == bytes(plain.keys[1]) and len(told.token_ids) == rows_of(view).lengths[1]


def test_a_view_of_one_cache_is_read_from_it(job: TrainJob) -> None:
    rows, reader = open_rows(job.train_view, root=job.cache_root, identity=IDENTITY)
    assert isinstance(reader, TeacherCache) and rows.identity == IDENTITY.digest()
