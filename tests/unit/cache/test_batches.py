"""Global batches follow from the rows, the seed and the epoch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from store_builders import VOCAB, make_record, open_cache

from cache.batches import global_batches, rank_shares
from cache.views import CacheView


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


lengths_lists = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(lengths_lists, st.integers(0, 5), st.integers(0, 3), st.integers(1, 100), st.integers(1, 9))
def test_every_row_is_taken_exactly_once_an_epoch(
    lengths: list[int], seed: int, epoch: int, budget: int, world: int
) -> None:
    view = make_view(lengths)
    batches = global_batches(view, seed=seed, epoch=epoch, tokens_per_batch=budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or view.lengths[batch].sum() <= budget
        shares = rank_shares(batch, lengths=view.lengths, world_size=world)
        assert len(shares) == world and [share.tolist() for share in shares] == dealt_by_hand(batch, view, world)
        assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())
        loads = [int(view.lengths[share].sum()) for share in shares]
        # Greedy from the longest: the heaviest rank exceeds the lightest by one row at most.
        assert max(loads) - min(loads) <= int(view.lengths[batch].max())
    for left, right in itertools.pairwise(batches):
        assert view.lengths[left].sum() + view.lengths[right[0]] > budget, "a batch is as full as it can be"


def dealt_by_hand(batch: np.ndarray, view: CacheView, world: int) -> list[list[int]]:
    """The longest row first, each to the lowest of the ranks that have the fewest tokens; in the order of the batch."""
    loads, owner = [0] * world, {}
    for row in sorted(batch.tolist(), key=lambda row: (-int(view.lengths[row]), batch.tolist().index(row))):
        owner[row] = lightest = min(range(world), key=loads.__getitem__)
        loads[lightest] += int(view.lengths[row])
    return [[row for row in batch.tolist() if owner[row] == rank] for rank in range(world)]


def test_batches_follow_from_keys_seed_epoch_and_budget_alone() -> None:
    view = make_view(list(range(1, 41)))
    first = np.concatenate(global_batches(view, seed=0, epoch=0, tokens_per_batch=64)).tolist()
    assert (
        first
        == np.concatenate(global_batches(make_view(list(range(1, 41))), seed=0, epoch=0, tokens_per_batch=9)).tolist()
    )
    assert first != np.concatenate(global_batches(view, seed=1, epoch=0, tokens_per_batch=64)).tolist()
    assert first != np.concatenate(global_batches(view, seed=0, epoch=1, tokens_per_batch=64)).tolist()
    other = make_view(list(range(1, 41)), seed=1)
    assert first != np.concatenate(global_batches(other, seed=0, epoch=0, tokens_per_batch=64)).tolist()
    assert first[:8] == GOLDEN_ORDER, "the order is part of what makes a run reproducible"


def test_two_caches_with_the_same_rows_give_the_same_batches(tmp_path: Path) -> None:
    records = [make_record([3, 4, at], prompt_len=2) for at in range(5, 17)]
    orders = []
    for name in ("here", "there"):
        cache = open_cache(tmp_path / name)
        cache.put(records, vocab=VOCAB)
        view = cache.view([record.key for record in records], dataset="train", k=4)
        orders.append(np.concatenate(global_batches(view, seed=0, epoch=0, tokens_per_batch=9)).tolist())
    assert orders[0] == orders[1]


GOLDEN_ORDER = [28, 11, 4, 13, 17, 25, 38, 2]


@given(lengths_lists, st.integers(0, 3), st.data())
def test_an_epoch_may_read_some_rows_alone(lengths: list[int], epoch: int, data: st.DataObject) -> None:
    view = make_view(lengths)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20)), dtype=np.int64)
    batches = global_batches(view, seed=0, epoch=epoch, tokens_per_batch=30, rows=rows)
    assert sorted(np.concatenate(batches).tolist()) == sorted(rows.tolist())
    whole = global_batches(view, seed=0, epoch=epoch, tokens_per_batch=30)
    all_rows = global_batches(view, seed=0, epoch=epoch, tokens_per_batch=30, rows=np.arange(len(lengths)))
    assert [each.tolist() for each in all_rows] == [each.tolist() for each in whole]
