"""Views over a library: made from keys, found again after rows moved, and read in blocks, ahead of the reader if asked.

A view is read by (segment, row), not through the index, so what others commit meanwhile changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.answers import Answers
from cache.disk.key_objects import Table
from cache.disk.manifests import DamagedObject
from cache.index import SEQUENCE_ROW
from cache.keys import KEY_BYTES
from cache.library import Library
from cache.pinning import touch_pin
from cache.views import CacheView
from configs.errors import CacheError

RowNumbers = NDArray[np.integer]
Made = TypeVar("Made")


class ViewReader:
    """Makes and reads the views of one teacher: of its sequences, or with `signals` those of its signals."""

    def __init__(self, library: Library, answers: Answers, *, identity: str, signals: bool = False) -> None:
        self._library = library
        self._answers = answers
        self._identity = identity
        self._signals = signals
        self._touched: set[str] = set()

    def make(self, keys: Sequence[bytes], *, dataset: str, k: int) -> CacheView:
        """The rows of these keys, none of them twice, in this order.

        Raises:
            CacheError: when a key is not held with at least `k` log-probabilities, or names a row of the other kind.
            DamagedObject: when a segment is damaged.
        """
        entries = self._answers.locate(keys, k=k)
        lacking = np.flatnonzero((entries["segment"] < 0) | (entries["k"] < k))
        if len(lacking):
            first = keys[int(lacking[0])].hex()[:12]
            raise CacheError(
                f"view {dataset}: {len(lacking)} of {len(keys)} rows are not in the cache with k={k} "
                f"(the first is {first}): run the fill again"
            )
        self._library.require_kind(entries, signals=self._signals)
        numbers, segment = np.unique(entries["segment"], return_inverse=True)
        return CacheView(
            identity=self._identity,
            dataset=dataset,
            k=k,
            segments=tuple(self._library.segment(number).manifest.uuid for number in numbers.tolist()),
            keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES).copy(),
            row_ids=self._library.row_ids(entries),
            segment=segment.astype(np.int32),
            row=entries["row"].astype(np.int64),
            prompt_len=entries["prompt_len"].astype(np.int32),
            lengths=entries["length"].astype(np.int32),
            finish=entries["finish"].copy(),
            signals=self._signals,
        )

    def holds(self, view: CacheView) -> bool:
        """Whether every row of a view is still there and is the same; reads no answer and writes nothing.

        Raises:
            CacheError: when the disk cannot be read.
        """
        keys = [key.tobytes() for key in view.keys]

        def ask() -> bool:
            try:
                return self.make(keys, dataset=view.dataset, k=view.k).digest == view.digest
            except CacheError:
                return False

        return self._library.sound(ask)

    def entries(self, view: CacheView) -> Table:
        """Where the rows of a view stand now.

        Raises:
            CacheError: when the view is of another teacher, or a row of it was lost or damaged.
            DamagedObject: when a segment is damaged.
        """
        if view.identity != self._identity:
            raise CacheError(f"view {view.dataset} is of teacher {view.identity}, this cache of {self._identity}")
        if any(self._library.number(uuid) is None for uuid in view.segments):
            self._library.refresh()
        numbers = [self._library.number(uuid) for uuid in view.segments]
        rows = [0 if number is None else self._library.segment(number).manifest.rows for number in numbers]
        table = np.array([-1 if number is None else number for number in numbers], dtype=np.int32)
        entries = np.zeros(len(view), dtype=SEQUENCE_ROW)
        entries["key"] = np.ascontiguousarray(view.keys).view(f"S{KEY_BYTES}").reshape(-1)
        entries["segment"] = table[view.segment] if numbers else 0
        entries["row"] = view.row
        # What a view says of places is only a hint: a row that cannot be there is looked for.
        entries["segment"][view.row >= np.array(rows, dtype=np.int64)[view.segment]] = -1
        moved = np.flatnonzero(entries["segment"] < 0)
        if len(moved):
            self._follow(view, entries, moved)
        entries["length"], entries["prompt_len"], entries["finish"] = view.lengths, view.prompt_len, view.finish
        return entries

    def touch(self, view: CacheView) -> None:
        """Say that a view is in use, once a process: whoever cannot write to the cache may read it all the same."""
        if view.digest not in self._touched:
            self._touched.add(view.digest)
            with suppress(OSError):
                touch_pin(self._library.storage, view.digest)

    def blocks(
        self, view: CacheView, indices: Iterable[RowNumbers], *, read: Callable[[Table], Made], prefetch: int
    ) -> Iterator[Made]:
        """For each array of positions in the view what `read` makes of its rows, up to `prefetch` ahead of the reader.

        Rows that are moved to another segment meanwhile are followed there.

        Raises:
            CacheError: when a row was lost, is damaged, is of the other kind or cannot be read.
        """
        entries = self._placed(view)
        self._library.require_kind(entries, signals=self._signals)

        def block(positions: RowNumbers) -> Made:
            nonlocal entries
            wanted = np.asarray(positions, dtype=np.int64)
            while True:
                try:
                    return read(entries[wanted])
                except DamagedObject as error:
                    self._library.set_aside(error)
                    entries = self._placed(view)

        return ahead(block, indices, depth=prefetch) if prefetch else map(block, indices)

    def _placed(self, view: CacheView) -> Table:
        return self._library.sound(lambda: self.entries(view))

    def _follow(self, view: CacheView, entries: Table, moved: NDArray[np.int64]) -> None:
        """Find rows whose segment is gone by their ids, and enter where they stand now.

        Another row of the same sequence is not a row of this view, even if it is fuller.
        """
        with self._library.disk_errors():
            asked, rows = self._library.index.find_rows(entries["key"][moved])
        same = self._library.row_ids(rows) == view.row_ids[moved[asked]]
        followed, rows = moved[asked[same]], rows[same]
        lost = np.setdiff1d(moved, followed)
        if len(lost):
            raise self._lost(view, segment=view.segments[view.segment[lost[0]]])
        entries["segment"][followed], entries["row"][followed] = rows["segment"], rows["row"]

    def _lost(self, view: CacheView, *, segment: str) -> CacheError:
        return CacheError(
            f"view {view.dataset} lost rows: segment {segment} of {self._library.storage.place} is gone or damaged: "
            "run the fill again, then start this stage anew"
        )


def ahead(make: Callable[[RowNumbers], Made], indices: Iterable[RowNumbers], *, depth: int) -> Iterator[Made]:
    """`map(make, indices)`, with up to `depth` results made by a thread before they are asked for."""
    # Two threads that gather rows would wait for each other at every slice, and take longer than one. Chunks are
    # expanded by threads of their own.
    with ThreadPoolExecutor(1, thread_name_prefix="cache-reader") as pool:
        pending: deque[Future[Made]] = deque()
        try:
            for positions in indices:
                pending.append(pool.submit(make, positions))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # A reader that stops early waits for no more than what is being read.
            for future in pending:
                future.cancel()
