"""Files of arrays from anywhere: bounded, without pickles, damage in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache.arrays import stored_arrays, vector
from configs.regular_files import UnreadableFileError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "a.npz", numbers=np.arange(1000), table=np.zeros((2, 2)))
    return tmp_path / "a.npz"


def test_what_was_stored_is_read(file: Path) -> None:
    with stored_arrays(file) as stored:
        assert vector(stored, "numbers", np.int64).tolist() == list(range(1000))


@pytest.mark.parametrize(("name", "kind"), [("numbers", np.float64), ("table", np.float64), ("absent", np.int64)])
def test_another_dtype_shape_or_name_is_damage_of_the_file(file: Path, name: str, kind: type[np.generic]) -> None:
    with pytest.raises(UnreadableFileError, match=r"a\.npz: its arrays are damaged"), stored_arrays(file) as stored:
        vector(stored, name, kind)


def test_a_file_that_expands_beyond_its_bound_is_not_expanded(file: Path) -> None:
    assert file.stat().st_size < 4000
    with (
        pytest.raises(UnreadableFileError, match="expands to more than 4,000 bytes"),
        stored_arrays(file, at_most=4000),
    ):
        pass


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", numbers=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnreadableFileError, match="damaged"), stored_arrays(tmp_path / "p.npz") as stored:
        vector(stored, "numbers", np.int64)


def test_a_cut_file_is_one_line_and_a_missing_one_is_missing(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(UnreadableFileError) as caught, stored_arrays(file) as stored:
            vector(stored, "numbers", np.int64)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError), stored_arrays(tmp_path / "none.npz"):
        pass
