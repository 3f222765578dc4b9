"""From requests to the body of an answer: what is there is given, what is lacking is charged and asked for.

A key that may only read is never the cause of a question: where one row is lacking it gets none, and is told which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from cache.answers import Request
from cache.protocols import Failure
from teacher_server.http.bodies import AnswerRow, FailedRow, RowError
from teacher_server.http.guard import Key
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import Served
from teacher_server.http.wire import MEDIA_TYPE, Answered
from teacher_server.requests import most_tokens


async def answers_to(
    requests: Sequence[Request], *, k: int, served: Served, key: Key, quotas: Quotas
) -> list[Answered]:
    """The answers in the order of the requests, each with `k` log-probabilities a position.

    Raises:
        Refusal: 403 where the key may not have the teacher asked, 429 where its quota is used up.
        BusyError: the teacher has too much to do.
        CacheError: the cache cannot be read.
    """
    held = await served.desk.held(requests, k=k)
    lacking = [at for at, record in enumerate(held) if record is None]
    asked: list[Answered] = []
    if lacking:
        if not key.may("ask"):
            reason = (
                f"requests[{lacking[0]}] and {len(lacking) - 1} more of {len(requests)} rows are not in the cache, and "
                f"the token of {key.name} may not have the teacher asked: it needs the scope ask"
            )
            raise Refusal(403, "not_cached", reason)
        new = [requests[at] for at in lacking]
        quotas.charge(key.name, tokens=sum(most_tokens(request) for request in dict.fromkeys(new)))
        asked = await served.desk.answer(new, k=k)
    found = iter(asked)
    return [next(found) if record is None else Answered(record, cached=True) for record in held]


def taken_tokens(answers: Sequence[Answered]) -> int:
    """Tokens that a teacher read or wrote for these answers."""
    return sum(
        len(each.outcome.token_ids) for each in answers if not each.cached and not isinstance(each.outcome, Failure)
    )


def wants_arrays(accept: Sequence[str]) -> bool:
    """Whether a client that accepts these types takes the binary body; JSON is for all others."""
    for offered in ",".join(accept).split(","):
        kind, *parameters = (part.strip().lower() for part in offered.split(";"))
        if kind == MEDIA_TYPE:
            return not any(part.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for part in parameters)
    return False


def json_answer(answers: Sequence[Answered], *, teacher: str, served: Served) -> bytes:
    """An `AnswerBody`, written row by row, so that others get a turn in between."""
    head = json.dumps({"teacher": teacher, "identity": served.facts.identity.digest()})[:-1]
    rows = ",".join(_row(each, served=served).model_dump_json(exclude_none=True) for each in answers)
    return f'{head}, "rows": [{rows}]}}'.encode()


def _row(answer: Answered, *, served: Served) -> AnswerRow | FailedRow:
    record = answer.outcome
    if isinstance(record, Failure):
        return FailedRow(error=RowError(code="not_answered", reason=record.reason))
    return AnswerRow(
        token_ids=record.token_ids.tolist(),
        prompt_len=record.prompt_len,
        finish=record.finish,
        cached=answer.cached,
        topk_ids=None if record.topk_ids is None else record.topk_ids.tolist(),
        topk_logprobs=None if record.topk_logprobs is None else [_finite(row) for row in record.topk_logprobs],
        target_logprobs=None if record.target_logprobs is None else _finite(record.target_logprobs),
        tail_logmass=None if record.tail_logmass is None else _finite(record.tail_logmass),
        text=None if served.texts is None else served.texts.text(record.response_ids.tolist()),
    )


def _finite(logprobs: Float32[np.ndarray, " N"]) -> list[float | None]:
    values: list[float | None] = logprobs.tolist()
    return values if np.isfinite(logprobs).all() else [None if value == -np.inf else value for value in values]
