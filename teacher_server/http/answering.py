"""From requests to the body of an answer: what is there is given, what is lacking is charged and asked for.

A key that may only read is never the cause of a question: where one row is lacking it gets none, and is told which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from cache.protocols import Failure
from cache.records import TeacherRecord
from teacher_server.http.bodies import AnswerRow, FailedRow, RowError
from teacher_server.http.desk import Desk, Question, Record
from teacher_server.http.guard import Key
from teacher_server.http.quotas import Quotas
from teacher_server.http.refusals import Refusal
from teacher_server.http.served import Served
from teacher_server.http.wire import MEDIA_TYPE, Answered


async def answers_to(
    questions: Sequence[Question], *, desk: Desk[Question, Record], key: Key, quotas: Quotas, per_row: int = 1
) -> list[Answered[Record]]:
    """The answers in the order of the questions, of which a row of the request asked `per_row`.

    Raises:
        Refusal: 403 where the key may not have the teacher asked, 429 where its quota is used up.
        BusyError: the teacher has too much to do.
        CacheError: the cache cannot be read.
    """
    held = await desk.held(questions)
    lacking = [at for at, record in enumerate(held) if record is None]
    asked: list[Answered[Record]] = []
    if lacking:
        if not key.may("ask"):
            rows = {at // per_row for at in lacking}
            reason = (
                f"requests[{min(rows)}] and {len(rows) - 1} more of {len(questions) // per_row} rows are not in the "
                f"cache, and the token of {key.name} may not have the teacher asked: it needs the scope ask"
            )
            raise Refusal(403, "not_cached", reason)
        new = [questions[at] for at in lacking]
        quotas.charge(key.name, tokens=desk.cost(new))
        asked = await desk.answer(new)
    found = iter(asked)
    return [next(found) if record is None else Answered(record, cached=True) for record in held]


def wants_arrays(accept: Sequence[str]) -> bool:
    """Whether a client that accepts these types takes the binary body; JSON is for all others."""
    for offered in ",".join(accept).split(","):
        kind, *parameters = (part.strip().lower() for part in offered.split(";"))
        if kind == MEDIA_TYPE:
            return not any(part.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for part in parameters)
    return False


def json_answer(answers: Sequence[Answered[TeacherRecord]], *, teacher: str, served: Served) -> bytes:
    """An `AnswerBody`, written row by row, so that others get a turn in between."""
    head = json.dumps({"teacher": teacher, "identity": served.facts.identity.digest()})[:-1]
    rows = ",".join(_row(each, served=served).model_dump_json(exclude_none=True) for each in answers)
    return f'{head}, "rows": [{rows}]}}'.encode()


def _row(answer: Answered[TeacherRecord], *, served: Served) -> AnswerRow | FailedRow:
    record = answer.outcome
    if isinstance(record, Failure):
        return FailedRow(error=RowError(code=record.code, reason=record.reason))
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
