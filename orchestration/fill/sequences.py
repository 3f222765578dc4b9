"""Sequences that a fill asks for: completions are written first, then sequences are scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from cache.keys import generation_key, sequence_key
from orchestration.fill.engine_loop import FillOrder
from orchestration.fill.work import Kept, Work
from orchestration.plan.requests import SequenceSet, SetPlan, plan_fill


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
        open_sets = [part for part in plan_fill(self.sets, cache=self.cache).sets if part.asks_teacher]
        works = []
        for scoring in (False, True):
            for k in sorted({part.sequences.k for part in open_sets}):
                wanted: dict[Request, None] = {}
                for part in open_sets:
                    if part.sequences.k == k:
                        wanted |= dict.fromkeys(r for r in _missing(part, scoring=scoring) if r not in failed)
                if wanted:
                    order = replace(self.order, scoring=scoring, k=k)
                    works.append(Work(tuple(wanted), order, claimed_k=k if scoring else 0))
        return works

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
        records = []
        for part in plan_fill(self.sets, cache=self.cache).sets:
            if part.sequences.k == 0:
                records += [_text_record(self.identity, request) for _, request in part.missing.score]
        if records:
            self.cache.put(records, vocab=vocab, licence=self.order.licence, provenance=self.order.provenance)


def _name(request: Request, *, identity: str) -> bytes:
    if isinstance(request, GenerateRequest):
        return generation_key(identity, request)
    return sequence_key(identity, request.token_ids, request.prompt_len)


def _missing(part: SetPlan, *, scoring: bool) -> list[Request]:
    if scoring:
        return [request for _, request in part.missing.score]
    return [part.sequences.requests[position] for position in part.missing.generate]


def _text_record(identity: str, request: ScoreRequest) -> TeacherRecord:
    token_ids = np.asarray(request.token_ids, dtype=np.int32)
    return TeacherRecord(
        key=sequence_key(identity, token_ids, request.prompt_len),
        token_ids=token_ids,
        prompt_len=request.prompt_len,
        finish="given",
        origin="prefill",
    )
