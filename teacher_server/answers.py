"""What an engine answered, as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cache.keys import sequence_key
from cache.protocols import Failure
from cache.records import Finish, GenerateRequest, Origin, ScoreRequest, TeacherRecord, tail_logmass
from teacher_server.engine_arrays import EngineArrays
from teacher_server.flat_logprobs import FlatContainer, FlatRows
from teacher_server.logprob_rows import LogprobRows, TopkRows, topk_rows
from teacher_server.requests import Asked


def make_record(
    rows: TopkRows | None,
    *,
    identity_digest: str,
    token_ids: Sequence[int],
    prompt_len: int,
    finish: Finish,
    origin: Origin,
    vocab: int,
) -> TeacherRecord:
    """The record of one sequence; text alone when `rows` is None."""
    key = sequence_key(identity_digest, token_ids, prompt_len)
    tokens = np.array(token_ids, dtype=np.int32)
    if rows is None:
        return TeacherRecord(key=key, token_ids=tokens, prompt_len=prompt_len, finish=finish, origin=origin)
    return TeacherRecord(
        key=key,
        token_ids=tokens,
        prompt_len=prompt_len,
        finish=finish,
        origin=origin,
        topk_ids=rows.topk_ids,
        topk_logprobs=rows.topk_logprobs,
        target_logprobs=rows.target_logprobs,
        target_ranks=rows.target_ranks,
        tail_logmass=tail_logmass(rows.topk_logprobs, vocab=vocab),
    )


class Completion(Protocol):
    """The part of `vllm.outputs.CompletionOutput` that is read here."""

    token_ids: Sequence[int]
    finish_reason: str | None
    logprobs: FlatContainer | EngineArrays | None


class EngineOutput(Protocol):
    """The part of `vllm.outputs.RequestOutput` that is read here."""

    outputs: list[Completion]
    prompt_logprobs: FlatContainer | EngineArrays | None


def answer(asked: Asked, output: EngineOutput, *, identity_digest: str, vocab: int) -> TeacherRecord | Failure:
    """What the engine made of a request."""
    if isinstance(asked.request, ScoreRequest):
        return _scored(
            asked.request, given=_rows(output.prompt_logprobs), identity_digest=identity_digest, k=asked.k, vocab=vocab
        )
    return _generated(asked.request, written=output.outputs[0], identity_digest=identity_digest, k=asked.k, vocab=vocab)


def _generated(
    request: GenerateRequest,
    *,
    written: Completion,
    identity_digest: str,
    k: int,
    vocab: int,
) -> TeacherRecord | Failure:
    """The record of a completion, whose log-probabilities have one row a response token, the stop token included."""
    response, given = list(written.token_ids), _rows(written.logprobs)
    if written.finish_reason not in ("stop", "length"):
        return Failure(f"the engine ended the request with {written.finish_reason}")
    if max(response) >= vocab:
        return Failure(f"the model wrote token id {max(response)}, beyond the tokenizer's {vocab}")
    rows = None
    if given is not None:
        rows = topk_rows(given, targets=np.array(response, dtype=np.int32), k=k, vocab=vocab)
        if rows is None:
            return _too_few(k, vocab=vocab)
    return make_record(
        rows,
        identity_digest=identity_digest,
        token_ids=[*request.prompt_ids, *response],
        prompt_len=len(request.prompt_ids),
        finish="stop" if written.finish_reason == "stop" else "length",
        origin="decode",
        vocab=vocab,
    )


def _scored(
    request: ScoreRequest, *, given: LogprobRows | None, identity_digest: str, k: int, vocab: int
) -> TeacherRecord | Failure:
    """The record of a given sequence. `given` has one row a token of the whole sequence but the first."""
    if given is None:
        return Failure("the engine ended the request without log-probabilities")
    targets = np.array(request.token_ids[request.prompt_len :], dtype=np.int32)
    rows = topk_rows(given, targets=targets, k=k, vocab=vocab, first=request.prompt_len)
    if rows is None:
        return _too_few(k, vocab=vocab)
    return make_record(
        rows,
        identity_digest=identity_digest,
        token_ids=request.token_ids,
        prompt_len=request.prompt_len,
        finish="given",
        origin="prefill",
        vocab=vocab,
    )


def _rows(container: FlatContainer | EngineArrays | None) -> LogprobRows | None:
    """What an engine gave, ready to be read whichever way it was kept."""
    return container if container is None or isinstance(container, EngineArrays) else FlatRows(container)


def _too_few(k: int, *, vocab: int) -> Failure:
    return Failure(f"fewer than k={k} of the model's most likely ids are below the tokenizer's {vocab}: lower k")
