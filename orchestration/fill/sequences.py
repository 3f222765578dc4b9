"""Sequences that a fill asks for: completions are written first, then sequences are scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache import GenerateRequest, Missing, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.disk.key_objects import KEY, one_of_each
from cache.keys import generation_key, sequence_key
from cache.rows import JoinedRows, SecondOf, TakenRows
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.work import Kept, Work
from orchestration.plan.requests import SequenceSet

ROWS_AT_ONCE = 65_536
"""Rows that are looked at, or kept as text, together."""


@dataclass(frozen=True, slots=True)
class WantedSequences:
    """The sequences of some sets (`work.WantedRows`)."""

    sets: Sequence[SequenceSet]
    cache: TeacherCache
    order: FillOrder

    @property
    def identity(self) -> str:
        """See `WantedRows`."""
        return self.cache.identity.digest()

    def open_work(self, failed: Collection[Request]) -> list[Work[Request]]:
        """See `WantedRows`: completions of one k after another, then scores of one k after another."""
        self.cache.refresh()
        looked = [(each, self.cache.missing(each.requests, k=each.k)) for each in self.sets]
        # Gold answers of which text is enough need nobody.
        open_sets = [(each, lacks) for each, lacks in looked if each.k or lacks.generate]
        works = []
        for scoring in (False, True):
            for k in sorted({each.k for each, _ in open_sets}):
                parts = [_missing(each, lacks, scoring=scoring) for each, lacks in open_sets if each.k == k]
                wanted = self._distinct([part for part in parts if part], failed=failed)
                if wanted:
                    order = replace(self.order, scoring=scoring, k=k)
                    works.append(Work(wanted, order, claimed_k=k if scoring else 0))
        return works

    def _distinct(self, parts: Sequence[Sequence[Request]], *, failed: Collection[Request]) -> Sequence[Request]:
        """The requests of several sets, each once, without those that failed; none is held."""
        rows: Sequence[Request] = JoinedRows(parts)
        if len(parts) > 1:
            names = bytearray()
            for at in range(0, len(rows), ROWS_AT_ONCE):
                names += b"".join(self.names(rows[at : at + ROWS_AT_ONCE]))
            rows = TakenRows(rows, one_of_each(np.frombuffer(names, dtype=KEY), limits=np.zeros(len(rows), np.int64)))
        if failed:
            asked = np.fromiter((request not in failed for request in rows), dtype=bool, count=len(rows))
            rows = TakenRows(rows, np.flatnonzero(asked))
        return rows

    def names(self, requests: Sequence[Request]) -> list[bytes]:
        """See `WantedRows`."""
        identity = self.identity
        return [_name(request, identity=identity) for request in requests]

    def missing(self, work: Work[Request]) -> list[Request]:
        """See `WantedRows`."""
        self.cache.refresh()
        missing = self.cache.missing(work.requests, k=work.order.k)
        positions = [position for position, _ in missing.score] if work.order.scoring else missing.generate
        return [work.requests[position] for position in positions]

    def kept(self, work: Work[Request]) -> Kept:
        """See `WantedRows`."""
        self.cache.refresh()
        keys = [key for key in self.cache.lookup(work.requests, k=work.order.k) if key is not None]
        records = [record for record in self.cache.get_many(keys, k=0) if record is not None]
        return Kept(len(records), sum(record.response_len for record in records))

    def store_gold_text(self, *, vocab: int) -> None:
        """Gold answers that need no scores are kept as text, without asking the teacher."""
        for part in self.sets:
            lacks = self.cache.missing(part.requests, k=0).score if part.k == 0 else ()
            for at in range(0, len(lacks), ROWS_AT_ONCE):
                block = lacks[at : at + ROWS_AT_ONCE]
                records = [_text_record(self.identity, request) for _, request in block]
                self.cache.put(records, vocab=vocab, licence=self.order.licence, provenance=self.order.provenance)


def _name(request: Request, *, identity: str) -> bytes:
    if isinstance(request, GenerateRequest):
        return generation_key(identity, request)
    return sequence_key(identity, request.token_ids, request.prompt_len)


def _missing(part: SequenceSet, lacks: Missing, *, scoring: bool) -> Sequence[Request]:
    return SecondOf(lacks.score) if scoring else TakenRows(part.requests, lacks.written)


def _text_record(identity: str, request: ScoreRequest) -> TeacherRecord:
    token_ids = np.asarray(request.token_ids, dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(identity, token_ids, request.prompt_len),
        token_ids=token_ids,
        prompt_len=request.prompt_len,
        finish="given",
        origin="prefill",
    )
