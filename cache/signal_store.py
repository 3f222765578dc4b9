"""The signals of a teacher (`cache.signals`), kept beside its sequences with the same promises.

Reached as `TeacherCache.signals`, whose window on the cache it shares: what one refreshes the other sees. A signal is a
row of its own, named by what was asked, so any subset of what was asked once is answered, in any order; nothing is ever
answered by another signal than the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.answers import Answers
from cache.committing import CommitReport
from cache.disk.key_objects import Table
from cache.disk.publishing import SegmentTerms
from cache.disk.signal_encoding import check_signal_encoding
from cache.library import Library
from cache.pinning import pin_view
from cache.reading import ViewReader
from cache.signal_blocks import SignalBlock
from cache.signal_writer import SignalWriter
from cache.signals import SignalRecord, SignalRequest, signal_key
from cache.views import CacheView
from configs.errors import CacheError

NO_VOCABULARY = 0
"""What the manifest of a segment of signals has for V."""


class SignalStore:
    """The signals of one teacher. Threads may share one."""

    def __init__(self, library: Library, answers: Answers, *, identity: str, provenance: Mapping[str, str]) -> None:
        self._library = library
        self._answers = answers
        self._digest = identity
        self._provenance = dict(provenance)
        self._reader = ViewReader(library, answers, identity=identity, signals=True)

    def keys(self, requests: Iterable[SignalRequest]) -> list[bytes]:
        """The key of each request, whether it is held or not."""
        return [signal_key(self._digest, request) for request in requests]

    def missing(self, requests: Sequence[SignalRequest]) -> tuple[int, ...]:
        """Positions of the requests that nothing here answers; of equal ones the first.

        Raises:
            CacheError: when the disk cannot be read.
        """
        first: dict[bytes, int] = {}
        for position, key in enumerate(self.keys(requests)):
            first.setdefault(key, position)
        held = self._library.sound(lambda: self._answers.locate(list(first))["segment"] >= 0)
        return tuple(position for position, there in zip(first.values(), held.tolist(), strict=True) if not there)

    def writer(
        self,
        *,
        encoding: str = "signal-f32",
        provenance: Mapping[str, str] | None = None,
        licence: str | None = None,
    ) -> SignalWriter:
        """A writer of new segments.

        Raises:
            RecordError: for an unknown encoding.
        """
        terms = SegmentTerms(
            identity=self._digest,
            vocab=NO_VOCABULARY,
            provenance=self._provenance | dict(provenance or {}),
            licence=licence,
        )
        return SignalWriter(
            self._library.storage,
            terms,
            encoding=check_signal_encoding(encoding),
            newest=self._library.newest_ns,
            committed=self._library.admit,
        )

    def put(
        self,
        records: Iterable[SignalRecord],
        *,
        encoding: str = "signal-f32",
        provenance: Mapping[str, str] | None = None,
        licence: str | None = None,
    ) -> CommitReport | None:
        """Commit signals of one width as one segment; all or none. Terms as of `writer`.

        Raises:
            RecordError: when a record breaks a rule.
            CacheError: when the disk refuses.
        """
        with self.writer(encoding=encoding, provenance=provenance, licence=licence) as writer:
            for record in records:
                writer.add(record)
            return writer.commit()

    def get_many(self, keys: Sequence[bytes]) -> list[SignalRecord | None]:
        """The signal of each key, or `None` where there is none; of whatever widths.

        Raises:
            CacheError: when the disk cannot be read, or a key names a sequence.
        """

        def ask() -> list[SignalRecord | None]:
            entries = self._answers.locate(keys)
            held = np.flatnonzero(entries["segment"] >= 0)
            self._library.require_kind(entries[held], signals=True)
            records: list[SignalRecord | None] = [None] * len(keys)
            for width in np.unique(entries["k"][held]).tolist():
                here = held[entries["k"][held] == width]
                block = self._library.read_signals(entries[here], with_tokens=True)
                for at, record in zip(here.tolist(), block.records(), strict=True):
                    records[at] = record
            return records

        return self._library.sound(ask)

    def view(self, keys: Sequence[bytes], *, dataset: str) -> CacheView:
        """The signals of these keys in this order, each key once, all of one width, which is the view's `k`; pinned.

        Raises:
            CacheError: when a key is not held, names a sequence, or the widths differ.
        """
        ordered = list(dict.fromkeys(keys))

        def make() -> CacheView:
            entries = self._answers.locate(ordered)
            widths = np.unique(entries["k"][entries["segment"] >= 0]).tolist()
            if len(widths) > 1:
                raise CacheError(
                    f"view {dataset}: signals of {widths} values a row stand in no one view: make one for each width"
                )
            return self._reader.make(ordered, dataset=dataset, k=widths[0] if widths else 0)

        view = self._library.sound(make)
        pin_view(self._library.storage, view)
        return view

    def holds(self, view: CacheView) -> bool:
        """Whether every signal of a view is still there and is the same; reads no value and writes nothing.

        Raises:
            CacheError: when the disk cannot be read.
        """
        return self._reader.holds(view)

    def iter_batches(
        self,
        view: CacheView,
        indices: Iterable[NDArray[np.integer]],
        *,
        with_tokens: bool = False,
        prefetch: int = 0,
    ) -> Iterator[SignalBlock]:
        """For each array of positions in the view its signals as flat arrays, in that order.

        Whole chunks are read and kept while they fit. With `prefetch` that many batches are made in threads before they
        are asked for.

        Raises:
            CacheError: when the view is of another teacher or of sequences, or a row of it was lost or damaged.
        """
        self._reader.touch(view)

        def read(entries: Table) -> SignalBlock:
            return self._library.read_signals(entries, with_tokens=with_tokens)

        return self._reader.blocks(view, indices, read=read, prefetch=prefetch)
