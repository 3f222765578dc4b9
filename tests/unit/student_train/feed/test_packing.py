"""Layouts: every sequence once, within the budget, with little padding; and which models may be packed for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from student_train.feed.packing import BATCH_COST, lay_out, padded_tokens


@given(lengths=st.lists(st.integers(0, 300), max_size=60), tokens=st.integers(1, 600), packs=st.booleans())
def test_every_sequence_once_within_the_budget(lengths: list[int], tokens: int, packs: bool) -> None:
    array = np.array(lengths, dtype=np.int64)
    layouts = lay_out(array, tokens=tokens, packs=packs)
    assert sorted(at for layout in layouts for row in layout for at in row) == list(range(len(lengths)))
    for layout in layouts:
        width = max(int(array[list(row)].sum()) for row in layout)
        alone = len(layout) == 1 and len(layout[0]) == 1
        assert alone or len(layout) * width <= tokens
        assert packs or all(len(row) == 1 for row in layout)


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "buckets"])
@pytest.mark.parametrize(("rows", "tokens"), [(8, 1024), (60, 4096), (300, 8192)])
def test_padding_wastes_less_than_a_tenth(rows: int, tokens: int, packs: bool) -> None:
    draw = np.random.default_rng(rows)
    used = computed = 0
    for _ in range(40):
        lengths = np.clip(draw.lognormal(5.0, 0.8, rows), 8, tokens).astype(np.int64)
        used += int(lengths.sum())
        computed += padded_tokens(lay_out(lengths, tokens=tokens, packs=packs), lengths)
    assert used >= 0.9 * computed


def test_sequences_of_one_length_are_not_packed() -> None:
    lengths = np.full(16, 64, dtype=np.int64)
    assert all(len(row) == 1 for layout in lay_out(lengths, tokens=512, packs=True) for row in layout)


def test_a_bucket_holds_sequences_of_like_length_where_they_are_long() -> None:
    lengths = np.random.default_rng(0).integers(2_000, 4_000, 50)
    layouts = lay_out(lengths, tokens=32_768, packs=False)
    assert len(layouts) > 4
    for layout in layouts:
        held = [int(lengths[row[0]]) for row in layout]
        assert min(held) >= 0.85 * max(held)


def test_short_texts_share_few_micro_batches_and_only_as_padded_as_pays() -> None:
    lengths = np.random.default_rng(0).integers(4, 40, 16)
    layouts = lay_out(lengths, tokens=4096, packs=False)
    assert 1 < len(layouts) <= 3
    cost = padded_tokens(layouts, lengths) + BATCH_COST * len(layouts)
    assert cost < len(lengths) * int(lengths.max()) + BATCH_COST
    assert cost < int(lengths.sum()) + BATCH_COST * len(set(lengths.tolist()))
