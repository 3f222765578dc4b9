"""Committing: one writer, one segment at a time, each of them all or nothing, whatever its rows are.

Rows wait in memory until `commit`. A commit writes every object of the segment, then its keys, then its manifest,
which makes it count and whose name only one process can take; each step is on stable storage before the next begins. A
crash leaves staging directories or segments that no manifest names; readers never see those, and nothing here removes
another writer's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from cache.disk.manifests import Manifest, arrival_ns
from cache.disk.packing import PackedSegment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.spending import Spent
from cache.disk.storage import Storage
from configs.errors import CacheError

MAX_ROWS = 131_072
TEXT_TOKENS_PER_ROW = 64
"""A token of text alone takes this small a part of the memory of a scored row."""


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What one commit made permanent: sequences, all tokens, response tokens, bytes on disk and the segment's uuid."""

    rows: int
    tokens: int
    response_tokens: int
    bytes: int
    uuid: str


class Writer(ABC):
    """Collects rows and commits them as segments; used by one thread at a time.

    As a context manager it commits at the end, or drops what is pending when an exception passes through; what was
    committed before stays.
    """

    def __init__(
        self,
        storage: Storage,
        terms: SegmentTerms,
        *,
        newest: Callable[[], int],
        committed: Callable[[Manifest, bytes], None],
    ) -> None:
        """`newest` says the `created_ns` of the youngest segment of all, `committed` is called with what was made."""
        self._storage = storage
        self._terms = terms
        self._newest = newest
        self._committed = committed
        self._tokens = 0
        self._scored_rows = 0
        self._first_added: float | None = None
        self._staging: Staging | None = None

    @property
    def identity_digest(self) -> str:
        """Digest of the teacher that the rows are of."""
        return self._terms.identity

    @property
    @abstractmethod
    def pending_rows(self) -> int:
        """Sequences that are not committed yet, or signals of sequences."""

    @property
    def pending_tokens(self) -> int:
        """All tokens of the pending sequences."""
        return self._tokens

    def due(self, commit_every_s: float, *, max_rows: int = MAX_ROWS) -> bool:
        """Whether the pending rows have waited long enough, or are many enough, to be committed.

        `max_rows` counts scored rows (positions with log-probabilities), which are what fills the memory.
        """
        first = self._first_added
        weight = self._scored_rows + self._tokens // TEXT_TOKENS_PER_ROW
        return first is not None and (time.monotonic() - first >= commit_every_s or weight >= max_rows)

    def commit(self, spent: Spent | None = None) -> CommitReport | None:
        """Make the pending rows permanent; `None` when there are none. `spent` is what it took to get them.

        Raises:
            CacheError: when the disk refuses. The rows stay pending and may be committed again.
        """
        if not self.pending_rows:
            return None
        staging = self._stage()
        packed = self._pack()
        try:
            # A clock that was set back, or another machine's that goes ahead, must not make this the older answer.
            arrived = arrival_ns(time.time_ns(), newest=self._newest())
            bought = {} if spent is None else spent.provenance()
            terms = replace(self._terms, provenance={**self._terms.provenance, **bought})
            manifest = staging.publish(packed, terms, created_ns=arrived)
        except OSError as error:
            raise CacheError(
                f"{self._storage.place}: segment {staging.name} not committed ({error.strerror}): free space or "
                "repair the disk and run again"
            ) from error
        finally:
            self._drop_staging()
        self._forget()
        self._committed(manifest, packed.keys)
        return CommitReport(
            rows=manifest.rows,
            tokens=manifest.tokens,
            response_tokens=manifest.response_tokens,
            bytes=manifest.disk_bytes,
            uuid=manifest.uuid,
        )

    def abort(self) -> None:
        """Drop what is pending; nothing of it was or will be visible."""
        self._drop_staging()
        self._forget()

    def close(self) -> None:
        """Commit what is pending.

        Raises:
            CacheError: when the disk refuses.
        """
        self.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _stage(self) -> Staging:
        """The place of the segment under way, made when the first row comes."""
        if self._staging is None:
            try:
                self._staging = Staging(self._storage)
            except OSError as error:
                raise CacheError(
                    f"{self._storage.place}: nothing can be written there ({error.strerror}): check the cache root"
                ) from error
            self._first_added = self._first_added or time.monotonic()
        self._staging.beat()
        return self._staging

    def _drop_staging(self) -> None:
        if self._staging is not None:
            self._staging.drop()
            self._staging = None

    def _forget(self) -> None:
        """Let go of what is pending."""
        self._tokens = self._scored_rows = 0
        self._first_added = None

    @abstractmethod
    def _pack(self) -> PackedSegment:
        """The segment of all that is pending."""
