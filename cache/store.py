"""The teacher cache: what a teacher said and believed, asked once and read by every experiment.

One `TeacherCache` is one process's window on `<root>/<identity digest>/`. Any number of processes may read and
commit at the same time; each sees what others committed after `refresh`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.answers import Answers, Missing, Request
from cache.blocks import RecordBlock
from cache.committing import CommitReport
from cache.counting import CacheStats, spent_on, stats_of
from cache.disk.directory import open_directory
from cache.disk.encoding import check_encoding
from cache.disk.key_objects import key_bytes
from cache.disk.publishing import SegmentTerms
from cache.disk.spending import Spent
from cache.identity import Identity
from cache.keys import generation_key
from cache.library import Damage, Library, Prove
from cache.pinning import pin_view
from cache.reading import ViewReader
from cache.records import GenerateRequest, TeacherRecord
from cache.signal_store import SignalStore
from cache.views import CacheView
from cache.writer import SegmentWriter
from configs.places import absolute_root

__all__ = ["CacheStats", "Missing", "TeacherCache"]

CHUNK_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Opened:
    """How a cache was opened, so that another process can open it the same way."""

    root: Path | str
    create: bool
    cache_bytes: int


class TeacherCache:
    """Everything that is known of one teacher. Make one with `open`.

    Threads may share one. Pickled, it opens the same cache anew in the other process.
    """

    def __init__(self, identity: Identity, library: Library, *, provenance: Mapping[str, str], opened: Opened) -> None:
        self.identity = identity
        self._digest = identity.digest()
        self._library = library
        self._provenance = dict(provenance)
        self._opened = opened
        self._answers = Answers(library, identity=self._digest)
        self._reader = ViewReader(library, self._answers, identity=self._digest)
        self.signals = SignalStore(library, self._answers, identity=self._digest, provenance=self._provenance)
        """What is kept of the teacher beside sequences and their log-probabilities, in the same place."""

    def __reduce__(self) -> tuple[Callable[..., TeacherCache], tuple[object, ...]]:
        return _reopen, (self._opened, self.identity, self._provenance)

    @classmethod
    def open(
        cls,
        root: Path | str,
        identity: Identity,
        *,
        provenance: Mapping[str, str] | None = None,
        create: bool = True,
        cache_bytes: int = CHUNK_CACHE_BYTES,
    ) -> TeacherCache:
        """Open the cache of a teacher below `root`, made first unless `create` is off.

        `provenance` goes into every manifest that this process writes; `cache_bytes` bounds the expanded chunks that
        are kept in memory.

        Raises:
            ConfigError: when the place cannot be used.
            CacheError: when the cache is of another format version, or is not there and `create` is off.
        """
        storage = open_directory(root, identity, create=create)
        library = Library(storage, identity=identity.digest(), cache_bytes=cache_bytes)
        library.refresh()
        opened = Opened(absolute_root(root), create=create, cache_bytes=cache_bytes)
        return cls(identity, library, provenance=provenance or {}, opened=opened)

    @property
    def root(self) -> Path | str:
        """The cache root below which it lies."""
        return self._opened.root

    def refresh(self) -> None:
        """Pick up what others committed, and drop what others found damaged.

        Raises:
            CacheError: when the directory cannot be read.
        """
        with self._library.lock:
            self._library.refresh()

    def missing(self, requests: Sequence[Request], *, k: int) -> Missing:
        """What a teacher must be asked so that every request is answered with `k` log-probabilities (0: text alone).

        A stored answer serves every limit that it stopped within, and every smaller one as a prefix; a stored row
        serves every smaller k. More log-probabilities for a stored sequence are a score of it, never a new answer.

        Raises:
            CacheError: when the disk cannot be read.
        """
        return self._library.sound(lambda: self._answers.missing(requests, k=k))

    def lookup(self, requests: Sequence[Request], *, k: int = 0) -> list[bytes | None]:
        """The sequence key that answers each request with at least `k` log-probabilities, or `None`.

        A request whose limit cuts a longer stored answer gets the key of the prefix, which this instance can then
        read like any other (and a view of it anywhere).

        Raises:
            CacheError: when the disk cannot be read.
        """

        def ask() -> list[bytes | None]:
            keys = self._answers.keys(requests)
            stored = self._answers.stored_k(keys)
            return [key if held >= k else None for key, held in zip(keys, stored, strict=True)]

        return self._library.sound(ask)

    def writer(
        self,
        *,
        vocab: int,
        encoding: str = "topk-u8",
        provenance: Mapping[str, str] | None = None,
        licence: str | None = None,
        rollout: str | None = None,
    ) -> SegmentWriter:
        """A writer of new segments. `vocab` is V; rows with K = V are always kept in full.

        `rollout` names the stage whose student wrote the sequences. Such records have a `policy_version` and finish
        `given`, answer no request to generate, and go first when their quota is passed (`cache.upkeep.rollouts`).

        Raises:
            RecordError: for an unknown encoding.
        """
        check_encoding(encoding)
        terms = SegmentTerms(
            identity=self._digest,
            vocab=vocab,
            provenance=self._provenance | dict(provenance or {}),
            licence=licence,
            rollout=rollout,
        )
        return SegmentWriter(
            self._library.storage,
            terms,
            encoding=encoding,
            newest=self._library.newest_ns,
            committed=self._library.admit,
        )

    def put(
        self,
        records: Iterable[TeacherRecord | tuple[TeacherRecord, GenerateRequest]],
        *,
        vocab: int,
        encoding: str = "topk-u8",
        provenance: Mapping[str, str] | None = None,
        licence: str | None = None,
        rollout: str | None = None,
    ) -> CommitReport | None:
        """Commit records, or (record, the request it answers), as one segment; all or none. Terms as of `writer`.

        Raises:
            RecordError: when a record breaks a rule.
            CacheError: when the disk refuses.
        """
        with self.writer(
            vocab=vocab, encoding=encoding, provenance=provenance, licence=licence, rollout=rollout
        ) as writer:
            for item in records:
                if isinstance(item, TeacherRecord):
                    writer.add(item)
                else:
                    record, request = item
                    name = generation_key(self._digest, request)
                    writer.add(record, generation_key=name, max_new_tokens=request.max_new_tokens)
            return writer.commit()

    def get_many(self, keys: Sequence[bytes], *, k: int | None = None) -> list[TeacherRecord | None]:
        """The fullest record of each key cut to `k` entries (`None`: as stored), or `None` without one of that k.

        Raises:
            CacheError: when the disk cannot be read, or a key names a signal.
        """

        def ask() -> list[TeacherRecord | None]:
            entries = self._answers.locate(keys, k=k)
            held = np.flatnonzero((entries["segment"] >= 0) & (entries["k"] >= (k or 0)))
            self._library.require_kind(entries[held], signals=False)
            records: list[TeacherRecord | None] = [None] * len(keys)
            for at, record in zip(held.tolist(), self._library.read(entries[held], k=k), strict=True):
                records[at] = record
            return records

        return self._library.sound(ask)

    def view(self, keys: Sequence[bytes], *, dataset: str, k: int) -> CacheView:
        """The rows of these keys in this order, each key once, read with `k` log-probabilities; pinned.

        Raises:
            CacheError: when a key is not held with at least `k` log-probabilities.
        """
        ordered = list(dict.fromkeys(keys))
        view = self._library.sound(lambda: self._reader.make(ordered, dataset=dataset, k=k))
        pin_view(self._library.storage, view, cut=self._answers.cut(ordered))
        return view

    def holds(self, view: CacheView) -> bool:
        """Whether every row of a view, of sequences or of signals, is still there and is the same; reads no answer.

        Raises:
            CacheError: when the disk cannot be read.
        """
        return self.signals.holds(view) if view.signals else self._reader.holds(view)

    def iter_blocks(
        self, view: CacheView, indices: Iterable[NDArray[np.integer]], *, prefetch: int = 0
    ) -> Iterator[list[TeacherRecord]]:
        """`iter_batches`, each batch as single records, whose arrays share its memory."""
        return (batch.records() for batch in self.iter_batches(view, indices, prefetch=prefetch))

    def iter_batches(
        self, view: CacheView, indices: Iterable[NDArray[np.integer]], *, prefetch: int = 0
    ) -> Iterator[RecordBlock]:
        """For each array of positions in the view its rows as flat arrays, in that order: the way to read in bulk.

        Whole chunks are read and kept while they fit. With `prefetch` that many batches are made in threads before they
        are asked for.

        Raises:
            CacheError: when the view is of another teacher, or a row of it was lost or damaged.
        """
        self._reader.touch(view)
        read = partial(self._library.read_block, k=view.k)
        return self._reader.blocks(view, indices, read=read, prefetch=prefetch)

    def sample(self, count: int, *, k: int, seed: int = 0) -> list[bytes]:
        """Up to `count` different sequence keys with at least `k` log-probabilities, drawn at random.

        Raises:
            CacheError: when the disk cannot be read.
        """

        def ask() -> list[bytes]:
            with self._library.disk_errors():
                return key_bytes(self._library.index.sample(count, seed=seed, k=k))

        return self._library.sound(ask)

    def spent(self, keys: Sequence[bytes], *, k: int) -> tuple[int, Spent]:
        """Tokens of the rows that answer these keys with `k` log-probabilities, and what they took to get.

        Keys of signals count as well, with `k` = 0.

        Each row has the share of its segment's cost that it has of its tokens; what is known of none is not known.

        Raises:
            CacheError: when the disk cannot be read.
        """
        return spent_on(keys, k=k, library=self._library, answers=self._answers)

    def stats(self) -> CacheStats:
        """Counts over all sound segments."""
        return stats_of(self._library)

    def verify(self) -> list[Damage]:
        """Every object that differs from its manifest, and every manifest that cannot be read. Changes nothing.

        Raises:
            CacheError: when the disk cannot be read.
        """
        return [damage for _, found in self.verify_segments() for damage in found]

    def verify_segments(self, prove: Prove | None = None) -> Iterator[tuple[int, list[Damage]]]:
        """`verify` one segment after the other: (bytes compared, what is damaged).

        `prove`, such as `cache.upkeep.proof.prove_segment`, then looks into what agrees with its digests.
        """
        return self._library.damages(prove)


def _reopen(opened: Opened, identity: Identity, provenance: Mapping[str, str]) -> TeacherCache:
    return TeacherCache.open(
        opened.root, identity, provenance=provenance, create=opened.create, cache_bytes=opened.cache_bytes
    )
