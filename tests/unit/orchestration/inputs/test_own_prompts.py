"""Prompts of a student are found by those of its teacher, whatever lies in memory of them."""

from __future__ import annotations

import tracemalloc

import pytest

from cache import rows
from orchestration.inputs.own_prompts import OwnPrompts

PAIRS = [((5, 6), (1,)), ((7,), (2, 3)), ((), (4,)), ((5, 6), (9,)), ((5, 6, 7), ())]


@pytest.mark.parametrize("held", [rows.HELD_BYTES, 4], ids=["in memory", "in a file"])
def test_it_is_a_mapping_of_the_first_of_each(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HELD_BYTES", held)
    found = OwnPrompts(PAIRS)
    assert found == {(5, 6): (1,), (7,): (2, 3), (): (4,), (5, 6, 7): ()}
    assert list(found) == [(5, 6), (7,), (), (5, 6, 7)]
    assert found.get((6, 5)) is None and (7, 7) not in found
    with pytest.raises(KeyError):
        found[(8,)]
    assert OwnPrompts() == {}


def test_very_many_take_a_few_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tuples in a dictionary a pair of 50 tokens each takes over a thousand."""
    monkeypatch.setattr(rows, "HELD_BYTES", 2**12)

    def held(count: int) -> int:
        tracemalloc.start()
        found = OwnPrompts((tuple(range(at, at + 50)), tuple(range(at, at + 50))) for at in range(count))
        now, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found) == count
        return now

    few, many = 1000, 3000
    assert (held(many) - held(few)) / (many - few) < 100
