"""Committing records: one writer, one segment at a time, each of them all or nothing.

Records wait in memory until `commit`. A commit writes every object of the segment, then its keys, then its manifest,
which makes it count and whose name only one process can take; each step is on stable storage before the next begins. A
crash leaves staging directories or segments that no manifest names; readers never see those, and nothing here removes
another writer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from cache.disk.encoding import resolve_encoding
from cache.disk.key_objects import FINISHES
from cache.disk.manifests import Manifest, arrival_ns
from cache.disk.packing import Generation, answered_generation, pack_segment
from cache.disk.publishing import SegmentTerms, Staging
from cache.disk.spending import Spent
from cache.disk.storage import Storage
from cache.records import TeacherRecord, validate_record
from cache.sampling import check_key, check_kind
from configs.errors import CacheError, RecordError

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


class SegmentWriter:
    """Collects records and commits them as segments. Made by `TeacherCache.writer`; used by one thread at a time.

    As a context manager it commits at the end, or drops what is pending when an exception passes through; what was
    committed before stays.
    """

    def __init__(
        self,
        storage: Storage,
        terms: SegmentTerms,
        *,
        encoding: str,
        newest: Callable[[], int],
        committed: Callable[[Manifest, bytes], None],
    ) -> None:
        """`newest` says the `created_ns` of the youngest segment of all, `committed` is called with what was made."""
        self._storage = storage
        self._terms = terms
        self._encoding = encoding
        self._newest = newest
        self._committed = committed
        self._records: dict[bytes, TeacherRecord] = {}
        self._generations: dict[tuple[bytes, bytes], Generation] = {}
        self._k = 0
        self._tokens = 0
        self._scored_rows = 0
        self._first_added: float | None = None
        self._staging: Staging | None = None

    @property
    def identity_digest(self) -> str:
        """Digest of the teacher that the records are of."""
        return self._terms.identity

    @property
    def pending_rows(self) -> int:
        """Sequences that are not committed yet."""
        return len(self._records)

    @property
    def pending_tokens(self) -> int:
        """Tokens (prompt and response) of the pending sequences."""
        return self._tokens

    def add(
        self, record: TeacherRecord, *, generation_key: bytes | None = None, max_new_tokens: int | None = None
    ) -> None:
        """Take a record into the next segment, and with `generation_key` also the request that it answers.

        A sequence that is pending already is kept once, the fuller of the two.

        Raises:
            RecordError: when the record breaks a rule, is not named by its own key, or has another k than the pending
                ones; nothing of it is taken.
            CacheError: when the staging directory cannot be made.
        """
        self._check(record)
        generation = None
        if generation_key is not None:
            if self._terms.rollout is not None:
                raise RecordError(f"record {record.key.hex()[:12]} refused: a student wrote it, no request is answered")
            generation = answered_generation(record, key=generation_key, max_new_tokens=max_new_tokens)
        self._stage()
        known = self._records.get(record.key)
        if known is not None:
            self._count(known, sign=-1)
            fuller = record if record.k > known.k else known
            record = replace(fuller, finish=min(known.finish, record.finish, key=FINISHES.index))
        self._records[record.key] = record
        self._count(record, sign=1)
        self._k = record.k or self._k
        if generation is not None:
            self._generations.setdefault((generation.key, generation.sequence), generation)

    def due(self, commit_every_s: float, *, max_rows: int = MAX_ROWS) -> bool:
        """Whether the pending records have waited long enough, or are many enough, to be committed.

        `max_rows` counts scored rows (positions with log-probabilities), which are what fills the memory.
        """
        first = self._first_added
        weight = self._scored_rows + self._tokens // TEXT_TOKENS_PER_ROW
        return first is not None and (time.monotonic() - first >= commit_every_s or weight >= max_rows)

    def commit(self, spent: Spent | None = None) -> CommitReport | None:
        """Make the pending records permanent; `None` when there are none. `spent` is what it took to get them.

        Raises:
            CacheError: when the disk refuses. The records stay pending and may be committed again.
        """
        if not self._records:
            return None
        staging = self._stage()
        packed = pack_segment(
            list(self._records.values()),
            generations=list(self._generations.values()),
            encoding=self._encoding,
            vocab=self._terms.vocab,
        )
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

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self, record: TeacherRecord) -> None:
        validate_record(record, vocab=self._terms.vocab)
        check_key(record, identity_digest=self._terms.identity)
        check_kind(record, encoding=self._encoding)
        if self._terms.rollout is not None:
            _check_rollout(record)
        # Records of draws have a width each; the segment keeps the largest.
        if record.k and record.counts is None:
            resolve_encoding(self._encoding, k=record.k, vocab=self._terms.vocab)
            if self._k and record.k != self._k:
                raise RecordError(
                    f"record {record.key.hex()[:12]} refused: k={record.k} but the pending rows have k={self._k}: "
                    "commit first, a segment has one k"
                )

    def _count(self, record: TeacherRecord, *, sign: int) -> None:
        self._tokens += sign * len(record.token_ids)
        self._scored_rows += sign * (record.response_len if record.k else 0)

    def _stage(self) -> Staging:
        """The place of the segment under way, made when the first record comes."""
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
        self._records, self._generations = {}, {}
        self._k = self._tokens = self._scored_rows = 0
        self._first_added = None


def _check_rollout(record: TeacherRecord) -> None:
    """A rollout says who wrote it, and no more of its end than the teacher knows.

    Of all rows of a sequence the smallest finish counts, and `given` is the largest: so a rollout that comes or goes
    changes no row of a view.
    """
    if record.policy_version is None:
        raise RecordError(
            f"record {record.key.hex()[:12]} refused: policy_version=None: a rollout names the weights that wrote it"
        )
    if record.finish != "given":
        raise RecordError(
            f"record {record.key.hex()[:12]} refused: finish={record.finish} in a rollout, which the teacher did not "
            "write: score it, or set finish=given"
        )
