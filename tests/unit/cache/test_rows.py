"""Sequences that are made when they are looked at: the same as those that are there, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import rows as rows_module
from cache.rows import AT_ONCE, JoinedRows, MadeRows, Places, SecondOf, SpilledRows, TakenRows, taken
from configs import ConfigError


def spilled(rows: Sequence[bytes]) -> SpilledRows:
    made = SpilledRows()
    for row in rows:
        made.append(row)
    return made


ROWS = st.lists(st.binary(max_size=12), max_size=40)


@given(
    rows=ROWS,
    held=st.integers(1, 64),
    start=st.integers(-50, 50),
    stop=st.integers(-50, 50),
    step=st.sampled_from([1, 2, -1]),
)
def test_rows_in_a_file_are_those_that_were_added(
    rows: list[bytes], held: int, start: int, stop: int, step: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "HELD_BYTES", held)
        made = spilled(rows)
    assert list(made) == rows and made == rows and tuple(rows) == made
    assert list(made[start:stop:step]) == rows[start:stop:step]
    assert [made[at] for at in range(-len(rows), len(rows))] == [*rows, *rows]
    with pytest.raises(IndexError):
        made[len(rows)]
    assert pickle.loads(pickle.dumps(made)) == tuple(rows)


def made_kinds() -> dict[str, tuple[MadeRows[object], list[object]]]:
    numbers = list(range(3 * AT_ONCE + 5))
    places = Places(np.array(numbers))
    odd = np.array(numbers[1::2])
    pairs = [(None, each) for each in numbers]
    return {
        "numbers": (places, numbers),
        "some of others": (TakenRows(numbers, odd), numbers[1::2]),
        "several": (JoinedRows([numbers[:2], [], places, [7]]), [*numbers[:2], *numbers, 7]),
        "of pairs": (SecondOf(pairs), numbers),
        "none": (JoinedRows([]), []),
    }


@pytest.mark.parametrize("kind", made_kinds())
def test_each_kind_is_the_sequence_that_it_stands_for(kind: str) -> None:
    made, expected = made_kinds()[kind]
    assert len(made) == len(expected) and list(made) == expected and made == expected and bool(made) == bool(expected)
    assert made != [*expected, 0]
    for part in (slice(1, 4), slice(AT_ONCE - 2, AT_ONCE + 3), slice(5, 2), slice(None, None, 3)):
        assert list(made[part]) == expected[part]
    assert not expected or (made[0], made[-1]) == (expected[0], expected[-1])


def test_what_is_taken_is_read_neighbours_together() -> None:
    asked = list[tuple[int, int]]()

    class Counted(Places):
        def made(self, start: int, stop: int) -> list[int]:
            asked.append((start, stop))
            return super().made(start, stop)

    rows = Counted(np.arange(100))
    assert list(taken(rows, np.array([3, 4, 5, 9, 40, 41, 2]))) == [3, 4, 5, 9, 40, 41, 2]
    assert asked == [(3, 6), (9, 10), (40, 42), (2, 3)]
    assert list(taken(rows, np.array([], dtype=np.int64))) == []


def test_a_file_has_no_name_and_is_closed_with_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "HELD_BYTES", 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    made = spilled([b"12345"] * 3)
    assert len(os.listdir("/proc/self/fd")) == before + 1 and list(tmp_path.iterdir()) == []
    del made
    assert len(os.listdir("/proc/self/fd")) == before


def test_few_rows_need_no_place_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert spilled([b"ab", b""]) == [b"ab", b""]
    monkeypatch.setattr(rows_module, "HELD_BYTES", 4)
    with pytest.raises(ConfigError, match=r"^/nowhere has no room for the rows of the data \(No such .*set TMPDIR to"):
        spilled([b"abcdef"])
