"""What teachers that are mixed with the first are asked: to score the sequences that it wrote, or that were given.

What the first one has not written yet is planned as the longest answer that it may write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.answers import Request
from configs.schema import TeacherConfig
from orchestration.plan.requests import Holdings, SequenceSet

ROWS_PER_READ = 1024


def sequences_of(sets: Sequence[SequenceSet], *, cache: Holdings) -> dict[Request, ScoreRequest]:
    """The sequence that answers each request of a teacher, as others are asked about it; those that it has answered."""
    asked = dict.fromkeys(request for part in sets if part.k for request in part.requests)
    found: dict[Request, ScoreRequest] = {each: each for each in asked if isinstance(each, ScoreRequest)}
    written = [each for each in asked if isinstance(each, GenerateRequest)]
    if not isinstance(cache, TeacherCache):  # nothing is held of it
        return found
    for at in range(0, len(written), ROWS_PER_READ):
        requests = written[at : at + ROWS_PER_READ]
        keys = cache.lookup(requests)
        records = iter(cache.get_many([key for key in keys if key is not None], k=0))
        for request, key in zip(requests, keys, strict=True):
            record = None if key is None else next(records)
            if record is not None:
                found[request] = sequence_of(record)
    return found


def sequence_of(record: TeacherRecord) -> ScoreRequest:
    """A sequence that somebody wrote, as another teacher is asked to score it."""
    return ScoreRequest(tuple(record.token_ids.tolist()), record.prompt_len)


def score_sets(
    sets: Sequence[SequenceSet], *, sequences: Mapping[Request, ScoreRequest], teacher: TeacherConfig, planned: bool
) -> tuple[SequenceSet, ...]:
    """What another teacher is asked about the sets of the first whose beliefs are kept.

    A request of unknown answer is left out, or `planned` as the longest one.
    """
    made = []
    for part in sets:
        if not part.k:
            continue
        scores = [sequences.get(each) or (_longest(each) if planned else None) for each in part.requests]
        requests = tuple(score for score in scores if score is not None)
        made.append(SequenceSet(part.source, part.split, requests, teacher.top_k, teacher.encoding))
    return tuple(made)


def _longest(request: Request) -> ScoreRequest:
    if isinstance(request, ScoreRequest):
        return request
    return ScoreRequest(request.prompt_ids + (0,) * request.max_new_tokens, len(request.prompt_ids))
