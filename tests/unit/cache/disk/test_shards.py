"""Chunks are decoded once, in their order, within a limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cache.disk.shards import ChunkCache


def test_a_chunk_that_several_threads_want_is_loaded_once_and_without_the_lock() -> None:
    cache, loads, waiting = ChunkCache(10**6), [], threading.Barrier(4)

    def load() -> np.ndarray:
        loads.append(threading.get_ident())
        # The cache answers others while this one loads.
        assert cache.get("other", lambda: np.zeros(3))[0] == 0
        return np.ones(5)

    def want(_: int) -> np.ndarray:
        waiting.wait()
        return cache.get("chunk", load)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(want, range(4)))
    assert len(loads) == 1
    assert all(array is found[0] for array in found)
    assert cache.bytes == 8 * 8


def test_a_load_that_fails_is_tried_again_by_the_next() -> None:
    cache = ChunkCache(100)

    def fail() -> np.ndarray:
        raise OSError(5, "Input/output error")

    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            cache.get("chunk", fail)
    assert cache.get("chunk", lambda: np.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_of_chunks_keeps_their_order_and_the_limit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.disk.shards.os.cpu_count", lambda: threads)
    cache = ChunkCache(3 * 8)
    order = [3, 1, 2, 1, 5, 4, 0, 3]
    wanted = [(number, lambda number=number: np.array([number])) for number in order]
    assert [int(chunk[0]) for chunk in cache.stream(wanted)] == order
    assert cache.bytes <= 3 * 8

    def fail() -> np.ndarray:
        raise OSError(5, "Input/output error")

    stream = cache.stream([*wanted[:2], ("broken", fail), *wanted[2:]])
    assert [int(next(stream)[0]) for _ in range(2)] == [3, 1]
    with pytest.raises(OSError, match="Input/output"):
        next(stream)
