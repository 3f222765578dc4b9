"""Reading ahead, from several threads, and from processes that were spawned."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from store_builders import TEACHER, VOCAB, flip_bit, make_record, open_cache, teacher_dir

from cache.disk.local_storage import LocalStorage
from cache.pinning import remove_pins
from cache.reading import ahead
from cache.store import TeacherCache
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import compact, forget
from cache.views import CacheView
from configs.errors import CacheError

COUNT = 40


def filled(root: Path) -> tuple[TeacherCache, CacheView]:
    cache = TeacherCache.open(root, TEACHER, cache_bytes=10_000)
    records = [make_record([3, 4, *range(5, 6 + at % 7)], prompt_len=2, seed=at) for at in range(7)]
    records += [make_record([5, at, 7, 8, 9], prompt_len=2, seed=at) for at in range(COUNT - 7)]
    for start in range(0, COUNT, 9):
        cache.put(records[start : start + 9], vocab=VOCAB)
    return cache, cache.view([record.key for record in records], dataset="train", k=4)


def content(cache: TeacherCache, view: CacheView, order: list[np.ndarray], *, prefetch: int) -> list[list[bytes]]:
    blocks = cache.iter_blocks(view, order, prefetch=prefetch)
    return [
        [record.key + record.topk_logprobs.tobytes() for record in block if record.topk_logprobs is not None]
        for block in blocks
    ]


def shuffled(seed: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng(seed).permutation(COUNT), 8)


@pytest.mark.parametrize("prefetch", [1, 3, 100])
def test_reading_ahead_gives_the_same_blocks_in_the_same_order(tmp_path: Path, prefetch: int) -> None:
    cache, view = filled(tmp_path)
    plain = content(cache, view, shuffled(0), prefetch=0)
    assert content(cache, view, shuffled(0), prefetch=prefetch) == plain


def test_no_more_is_read_ahead_than_was_asked_for() -> None:
    made: list[int] = []
    # Threads of other tests may still be there: an idle pool of anything counts as alive.
    others = set(threading.enumerate())

    def make(positions: np.ndarray) -> int:
        made.append(int(positions[0]))
        return made[-1]

    results = ahead(make, (np.array([number]) for number in range(50)), depth=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 3
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in set(threading.enumerate()) - others if thread.is_alive()]
    assert len(made) <= 5 + 3


def test_damage_met_ahead_is_told_when_its_block_is_asked_for(tmp_path: Path) -> None:
    _, view = filled(tmp_path)
    for path in (teacher_dir(tmp_path) / "segments" / view.segments[-1] / "topk_ids").rglob("0"):
        if path.is_file():
            flip_bit(path)
    cache = open_cache(tmp_path)
    with pytest.raises(CacheError, match="lost rows"):
        list(cache.iter_blocks(view, shuffled(1), prefetch=4))


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache, view = filled(tmp_path)
    expected = [content(cache, view, shuffled(seed), prefetch=0) for seed in range(6)]
    writer_done = threading.Event()

    def write() -> None:
        # Others commit and refresh meanwhile.
        for at in range(10):
            cache.put([make_record([9, 9, at], prompt_len=2)], vocab=VOCAB)
            cache.refresh()
        writer_done.set()

    with ThreadPoolExecutor(7) as pool:
        writing = pool.submit(write)
        readers = [pool.submit(content, cache, view, shuffled(seed), prefetch=2) for seed in range(6)]
        assert [reader.result() for reader in readers] == expected
        writing.result()
    assert writer_done.is_set()
    assert cache.stats().records == COUNT + 10


def _in_child(cache: TeacherCache, view: CacheView, seed: int) -> list[list[bytes]]:
    return content(cache, view, shuffled(seed), prefetch=2)


def test_a_spawned_process_reads_the_same(tmp_path: Path) -> None:
    cache, view = filled(tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.apply(_in_child, (cache, view, 3))
    assert read == content(cache, view, shuffled(3), prefetch=0)


def test_growth_by_others_changes_nothing_for_a_view(tmp_path: Path) -> None:
    cache, view = filled(tmp_path)
    before = content(cache, view, shuffled(0), prefetch=0)
    # Fuller rows of the very same sequences, which win every later lookup.
    other = open_cache(tmp_path)
    fuller = [
        make_record(list(record.token_ids), prompt_len=2, k=9, seed=99)
        for block in cache.iter_blocks(view, [np.arange(COUNT)])
        for record in block
    ]
    other.put(fuller, vocab=VOCAB)
    cache.refresh()
    assert content(cache, view, shuffled(0), prefetch=0) == before
    assert cache.view([record.key for record in fuller], dataset="train", k=4).digest != view.digest


def test_a_view_finds_its_rows_where_they_were_moved(tmp_path: Path) -> None:
    cache, view = filled(tmp_path)
    before = content(cache, view, shuffled(0), prefetch=0)
    storage = LocalStorage(teacher_dir(tmp_path))
    compact(storage, identity=TEACHER.digest())
    cache.refresh()
    keys = [key.tobytes() for key in view.keys]
    again = cache.view(keys, dataset="train", k=4)
    assert again.digest == view.digest, "merging changes no run's digest"
    assert again.segments != view.segments
    assert content(cache, view, shuffled(0), prefetch=0) == before, "read where they stood, until that is gone"
    remove_pins(storage, [view.digest])
    collect_garbage(storage, identity=TEACHER.digest(), dry_run=False, grace_s=0.0)
    assert not set(view.segments) & set(storage.names("segments"))
    for window in (cache, open_cache(tmp_path)):
        window.refresh()
        assert content(window, view, shuffled(0), prefetch=0) == before


@pytest.mark.parametrize("prefetch", [0, 2])
def test_rows_that_move_while_they_are_read_are_followed(tmp_path: Path, prefetch: int) -> None:
    cache, view = filled(tmp_path)
    before = content(cache, view, shuffled(0), prefetch=0)
    running = TeacherCache.open(tmp_path, TEACHER, cache_bytes=1)
    blocks = running.iter_blocks(view, shuffled(0), prefetch=prefetch)
    found = [next(blocks)]
    storage = LocalStorage(teacher_dir(tmp_path))
    compact(storage, identity=TEACHER.digest())
    remove_pins(storage, [view.digest])
    collect_garbage(storage, identity=TEACHER.digest(), dry_run=False, grace_s=0.0)
    assert not set(view.segments) & set(storage.names("segments"))
    found += blocks
    assert [
        [record.key + record.topk_logprobs.tobytes() for record in block if record.topk_logprobs is not None]
        for block in found
    ] == before


def test_a_forgotten_row_is_lost_to_its_view(tmp_path: Path) -> None:
    cache, view = filled(tmp_path)
    storage = LocalStorage(teacher_dir(tmp_path))
    remove_pins(storage, [view.digest])
    forget(storage, identity=TEACHER.digest(), keys=[view.keys[3].tobytes()])
    for window in (cache, open_cache(tmp_path)):
        window.refresh()
        with pytest.raises(CacheError, match="lost rows"):
            list(window.iter_blocks(view, shuffled(0)))
        assert window.get_many([view.keys[3].tobytes()]) == [None]
    # The same sequence scored anew is another row, and none of this view.
    cache.put([make_record([3, 4, 5, 6, 7, 8], prompt_len=2, seed=5)], vocab=VOCAB)
    with pytest.raises(CacheError, match="lost rows"):
        list(cache.iter_blocks(view, shuffled(0)))
