"""Collecting signals for a segment: each checked before it is taken, one width for all of them (`cache.committing`)."""

from __future__ import annotations

from collections.abc import Callable

from cache.committing import Writer
from cache.disk.manifests import Manifest
from cache.disk.packing import PackedSegment, pack_signals
from cache.disk.publishing import SegmentTerms
from cache.disk.signal_encoding import SignalEncoding, check_encodable
from cache.disk.storage import Storage
from cache.signals import SignalRecord, validate_signal
from configs.errors import RecordError

VALUES_PER_ROW = 512
"""A row of so many values counts as one when a segment grows full: it takes the memory of 64 log-probabilities, with
all that goes with them and is done to them. Wider rows count as several."""


class SignalWriter(Writer):
    """Collects signals and commits them as segments. Made by `SignalStore.writer`."""

    def __init__(
        self,
        storage: Storage,
        terms: SegmentTerms,
        *,
        encoding: SignalEncoding,
        newest: Callable[[], int],
        committed: Callable[[Manifest, bytes], None],
    ) -> None:
        """As of `Writer`."""
        super().__init__(storage, terms, newest=newest, committed=committed)
        self._encoding = encoding
        self._records: dict[bytes, SignalRecord] = {}
        self._width = 0

    @property
    def pending_rows(self) -> int:
        """Signals that are not committed yet."""
        return len(self._records)

    def add(self, record: SignalRecord) -> None:
        """Take a signal into the next segment. One that is pending already is kept as it came first.

        Raises:
            RecordError: when the record breaks a rule, is not named by its own key, has another width than the pending
                ones, or a value that the encoding cannot hold; nothing of it is taken.
            CacheError: when the staging directory cannot be made.
        """
        self._check(record)
        self._stage()
        if record.key in self._records:
            return
        self._records[record.key] = record
        self._width = record.width
        self._tokens += len(record.token_ids)
        self._scored_rows += len(record.values) * -(-record.width // VALUES_PER_ROW)

    def _check(self, record: SignalRecord) -> None:
        validate_signal(record, identity_digest=self._terms.identity)
        named = f"signal {record.key.hex()[:12]} refused"
        if self._width and record.width != self._width:
            raise RecordError(
                f"{named}: {record.width} values a row but the pending ones have {self._width}: commit first, a "
                "segment has one width"
            )
        try:
            check_encodable(record.values, encoding=self._encoding)
        except RecordError as error:
            raise RecordError(f"{named}: {error}") from error

    def _pack(self) -> PackedSegment:
        return pack_signals(list(self._records.values()), encoding=self._encoding)

    def _forget(self) -> None:
        super()._forget()
        self._records, self._width = {}, 0
