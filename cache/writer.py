"""Collecting records for a segment: each checked before it is taken, one k for all of them (`cache.committing`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cache.committing import Writer
from cache.disk.encoding import resolve_encoding
from cache.disk.key_objects import FINISHES
from cache.disk.manifests import Manifest
from cache.disk.packing import Generation, PackedSegment, answered_generation, pack_segment
from cache.disk.publishing import SegmentTerms
from cache.disk.storage import Storage
from cache.records import TeacherRecord, validate_record
from cache.sampling import check_key, check_kind
from configs.errors import RecordError


class SegmentWriter(Writer):
    """Collects records and commits them as segments. Made by `TeacherCache.writer`."""

    def __init__(
        self,
        storage: Storage,
        terms: SegmentTerms,
        *,
        encoding: str,
        newest: Callable[[], int],
        committed: Callable[[Manifest, bytes], None],
    ) -> None:
        """As of `Writer`."""
        super().__init__(storage, terms, newest=newest, committed=committed)
        self._encoding = encoding
        self._records: dict[bytes, TeacherRecord] = {}
        self._generations: dict[tuple[bytes, bytes], Generation] = {}
        self._k = 0

    @property
    def pending_rows(self) -> int:
        """Sequences that are not committed yet."""
        return len(self._records)

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

    def _pack(self) -> PackedSegment:
        return pack_segment(
            list(self._records.values()),
            generations=list(self._generations.values()),
            encoding=self._encoding,
            vocab=self._terms.vocab,
        )

    def _forget(self) -> None:
        super()._forget()
        self._records, self._generations, self._k = {}, {}, 0


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
