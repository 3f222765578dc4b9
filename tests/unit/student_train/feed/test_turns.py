"""Which copy of a text an epoch reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from configs.errors import DataError
from student_train.feed.turns import Turns, take_turns


def test_an_epoch_reads_one_copy_of_each_text_and_then_they_come_again() -> None:
    turns = take_turns([[0, 1, 2], [3, 4, 5]], views=2)
    assert [turns.of(epoch).tolist() for epoch in range(5)] == [[0, 3], [1, 4], [0, 3], [1, 4], [0, 3]]


def test_for_a_copy_that_there_is_not_stands_the_next_one() -> None:
    turns = take_turns([[None, 7, None], [None, None, None], [9, None, None], [4]], views=3)
    assert turns.rows.tolist() == [[7, 9, 4], [7, 9, 4], [7, 9, 4]]
    # Also one that has no turn of its own.
    assert take_turns([[None, None, 5]], views=1).rows.tolist() == [[5]]


@given(
    st.lists(st.lists(st.none() | st.integers(0, 99), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 6),
)
def test_every_turn_is_about_the_same_texts_and_reads_nothing_else(copies: list[list[int | None]], views: int) -> None:
    turns = take_turns(copies, views=views)
    there = [rows for rows in copies if any(row is not None for row in rows)]
    assert turns.rows.shape == (views, len(there))
    for at, rows in enumerate(there):
        for turn in range(views):
            row, own = int(turns.rows[turn, at]), rows[turn % len(rows)]
            assert row in rows and own in (None, row)


def test_turns_come_back_as_they_were_saved_or_not_at_all(tmp_path: Path) -> None:
    turns, path = take_turns([[0, 1], [2, 3]], views=2), tmp_path / "deep/turns.safetensors"
    turns.save(path)
    assert Turns.load(path).rows.tolist() == turns.rows.tolist()
    assert Turns.load(path).digest == turns.digest != take_turns([[0, 1], [3, 2]], views=2).digest
    save_file({"rows": np.array([[0, 2], [1, 0]], np.int32)}, path, metadata={"format": "stillroom/turns/1"})
    with pytest.raises(DataError, match="differs from its digest: delete it and run again"):
        Turns.load(path)
    with pytest.raises(DataError, match="no table of turns can be read there"):
        Turns.load(tmp_path / "nowhere")


def test_a_table_of_another_shape_is_another_table() -> None:
    flat = np.arange(6, dtype=np.int32)
    assert Turns(flat.reshape(2, 3)).digest != Turns(flat.reshape(3, 2)).digest
