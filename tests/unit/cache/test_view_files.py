"""One file for views that are made of others: what was saved comes back, and what is not that is refused in one line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from narrowed_builders import narrowed_view
from numpy.typing import NDArray
from training_jobs import make_job

from cache.narrowed import NarrowedView
from cache.view_files import ViewFile, load_view_file, save_view_file
from cache.views import CacheView
from configs.errors import CacheError


@dataclass(frozen=True)
class Made:
    """What is made of a file here."""

    content: ViewFile
    digest: str = "d" * 64


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> NarrowedView:
    job = make_job(tmp_path_factory.mktemp("job"))
    return narrowed_view(job, job.train_view)


def kept(path: Path, view: CacheView, **arrays: NDArray[np.int32]) -> Path:
    """A file with a view twice, arrays and a text."""
    save_view_file(path, ViewFile((view, view), arrays, {"who": "two teachers"}), kind="made", digest="d" * 64)
    return path


def test_views_arrays_and_texts_come_back(narrow: NarrowedView, tmp_path: Path) -> None:
    path = kept(tmp_path / "deep" / "a", narrow.view, ends=np.arange(5, dtype=np.int32))
    found = load_view_file(path, kind="made", make=Made).content
    assert [view.digest for view in found.views] == [narrow.view.digest] * 2
    assert found.said["who"] == "two teachers" and found.vectors({"ends": "<i4"})["ends"].tolist() == [0, 1, 2, 3, 4]
    assert set(found.arrays) == {"ends"}


def test_an_array_of_another_kind_is_none(narrow: NarrowedView, tmp_path: Path) -> None:
    path = kept(tmp_path / "a", narrow.view, ends=np.arange(4, dtype=np.int32).reshape(2, 2))
    for kinds in ({"ends": "<i4"}, {"begins": "<i4"}):
        with pytest.raises(CacheError, match="no made view can be read there"):
            load_view_file(
                path, kind="made", make=lambda content, kinds=kinds: Made(content, str(content.vectors(kinds)))
            )
    path = kept(tmp_path / "b", narrow.view, ends=np.arange(4, dtype=np.int32))
    with pytest.raises(CacheError, match="ends is int32 of shape"):
        load_view_file(path, kind="made", make=lambda content: Made(content, str(content.vectors({"ends": "<i8"}))))


def test_what_is_no_file_of_this_kind_is_refused_in_one_line(narrow: NarrowedView, tmp_path: Path) -> None:
    path = kept(tmp_path / "a", narrow.view)
    with pytest.raises(CacheError, match="not a narrowed view of this version: delete it and run again"):
        NarrowedView.load(path)
    device = tmp_path / "endless"
    device.symlink_to("/dev/zero")
    for strange in (device, tmp_path, tmp_path / "none"):
        with pytest.raises(CacheError, match="no narrowed view can be read there") as caught:
            NarrowedView.load(strange)
        assert "\n" not in str(caught.value)
    with pytest.raises(CacheError, match="the view cannot be written"):
        narrow.save(path / "below a file")


def test_no_changed_byte_goes_unseen(narrow: NarrowedView, tmp_path: Path) -> None:
    path, draw = tmp_path / "train.narrowed", np.random.default_rng(0)
    narrow.save(path)
    whole = path.read_bytes()
    for at in draw.integers(0, len(whole), size=200).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << int(draw.integers(8)))]) + whole[at + 1 :])
        try:
            found = NarrowedView.load(path)
        except CacheError:
            continue
        # Where nothing is told by it: white space of the header, names, padding.
        assert found.digest == narrow.digest and found.view.segments == narrow.view.segments
    path.write_bytes(whole)
    assert NarrowedView.load(path).digest == narrow.digest != replace(narrow.view, dataset="other").digest
