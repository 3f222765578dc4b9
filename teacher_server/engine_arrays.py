"""An engine's log-probabilities kept as the arrays that they come in.

vLLM's `LogprobsProcessor` (vllm/v1/engine/logprobs.py) turns the arrays of every step into lists of Python numbers, and
reading a record makes arrays of them again: together 13 microseconds a token at 64 log-probabilities. Here the arrays'
bytes are kept instead.

No class of vLLM is changed. A request that was handed to an engine has a state in the engine's own process, and in that
one state the processor is replaced, before the engine's next step; a request that is left alone is read as vLLM reads
it. Both are private names of vLLM, so this is done for versions that were looked at (`KNOWN_VERSIONS`) and only when
the first requests of an engine, read both ways from the same output, gave the same rows (`Trial`).
See docs/decisions/0036-engine-arrays.md.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from cache.records import GenerateRequest, ScoreRequest
from configs.errors import EngineError
from teacher_server.condition import FAULTS, one_line
from teacher_server.flat_logprobs import FlatRows
from teacher_server.logprob_rows import RowBlock
from teacher_server.requests import Asked

KNOWN_VERSIONS = ("0.32.0",)
"""Releases of vLLM whose processor was read and tried."""

_UNREADABLE: tuple[type[Exception], ...] = (*FAULTS, EngineError)
"""What reading rows of another layout may end in."""

_IDS, _LOGPROBS = np.dtype(np.int32), np.dtype(np.float32)


class EngineArrays:
    """Rows of one sequence, added a step at a time (`LogprobRows`).

    What is added is copied: it may be a view of a buffer that the engine uses again, and one row would hold the whole
    step's memory. Copies are bytes, four times as fast to make as small arrays, and nothing to the garbage collector.

    Args:
        width: Entries of a row, K + 1. A step is as wide as its widest request; the rest of it is left out.
        start: The first position that has a row; 1 for a prompt, whose first token nothing predicts.
    """

    __slots__ = ("_ids", "_logprobs", "_ranks", "_start", "_width")

    def __init__(self, width: int, *, start: int = 0) -> None:
        self._width, self._start = width, start
        self._ids: list[bytes] = []
        self._logprobs: list[bytes] = []
        self._ranks: list[bytes] = []

    def append(self, ids: Any, logprobs: Any, ranks: Any) -> None:
        """Add the rows of the next positions: arrays [n, at least width], [n, at least width] and [n]."""
        if ids.shape[1] != self._width:
            ids, logprobs = ids[:, : self._width], logprobs[:, : self._width]
        self._ids.append(_bytes(ids, _IDS))
        self._logprobs.append(_bytes(logprobs, _LOGPROBS))
        self._ranks.append(_bytes(ranks, _IDS))

    def block(self, *, first: int) -> RowBlock:
        """See `LogprobRows`."""
        ids, logprobs, ranks = (b"".join(parts) for parts in (self._ids, self._logprobs, self._ranks))
        skipped = first - self._start
        if not 0 <= skipped * _IDS.itemsize < len(ranks):
            raise EngineError(f"the engine returned no rows of log-probabilities from position {first} on")
        if not len(ids) == len(logprobs) == len(ranks) * self._width:
            raise EngineError("the engine's log-probability rows are not of one length")
        return RowBlock(
            ids=np.frombuffer(ids, _IDS).reshape(-1, self._width)[skipped:],
            logprobs=np.frombuffer(logprobs, _LOGPROBS).reshape(-1, self._width)[skipped:],
            ranks=np.frombuffer(ranks, _IDS)[skipped:],
        )


def _bytes(array: Any, dtype: np.dtype[Any]) -> bytes:
    copied: bytes = (array if array.dtype == dtype else array.astype(dtype)).tobytes()
    return copied


class LogprobsProcessor(Protocol):
    """The part of `vllm.v1.engine.logprobs.LogprobsProcessor` that a request's state uses for a final output alone."""

    logprobs: Any
    prompt_logprobs: Any
    cumulative_logprob: float | None
    prompt_token_id_logprobs: Any

    def update_from_output(self, output: Any) -> None:
        """Take what a step of the engine gave for the request."""
        ...


class ArrayProcessor:
    """Stands where a request's `LogprobsProcessor` stood, with `EngineArrays` for its containers.

    The sum of the log-probabilities is not kept, nor are scores of given ids: nothing here asks for them.
    """

    cumulative_logprob: float | None = None
    prompt_token_id_logprobs: Any = None

    def __init__(self, replaced: Any) -> None:
        sampled, prompt = replaced.num_logprobs, replaced.num_prompt_logprobs
        self.logprobs = None if sampled is None else EngineArrays(sampled + 1)
        self.prompt_logprobs = None if prompt is None else EngineArrays(prompt + 1, start=1)

    def update_from_output(self, output: Any) -> None:
        """Keep the rows that a step gave for the request: one of each token it wrote, and those of its prompt."""
        if (written := output.new_logprobs) is not None:
            assert self.logprobs is not None
            self.logprobs.append(written[0], written[1], written[2])
        if (read := output.new_prompt_logprobs_tensors) is not None:
            assert self.prompt_logprobs is not None
            self.prompt_logprobs.append(*(tensor.cpu().numpy() for tensor in read[:3]))


class Reading(Protocol):
    """How the log-probabilities of a request are read that was just handed to an engine (`vllm.v1.LLMEngine`)."""

    def __call__(self, engine: Any, request_id: str) -> None:
        """Decide it for the request of this (internal) id."""
        ...


def keep_lists(engine: Any, request_id: str) -> None:
    """A `Reading`: as vLLM reads them."""


def keep_arrays(engine: Any, request_id: str) -> None:
    """A `Reading`: as the arrays that they come in."""
    state = engine.output_processor.request_states[request_id]
    # Where none are asked for there is nothing to keep.
    if state.logprobs_processor.logprobs is not None or state.logprobs_processor.prompt_logprobs is not None:
        state.logprobs_processor = ArrayProcessor(state.logprobs_processor)


def unknown_version(version: str) -> str | None:
    """Why arrays are not tried with this version of vLLM, or None; what follows a plus is how it was built."""
    if version.split("+")[0] in KNOWN_VERSIONS:
        return None
    return f"only the processor of {', '.join(KNOWN_VERSIONS)} is known"


class Trial:
    """A `Reading` of a few requests in both ways at once: vLLM's own answers, arrays are kept beside it.

    Nothing that goes wrong with the arrays reaches the engine. The requests want `most` log-probabilities, and fewer in
    the same steps, of both kinds. They are shorter than a KV block, so later requests find nothing of them.
    """

    def __init__(self, *, vocab: int, most: int) -> None:
        prompt = tuple(token % vocab for token in range(1, 9))
        self.requests = (
            Asked(GenerateRequest(prompt, (), 3), 1),
            Asked(ScoreRequest(prompt, 1), most),
            Asked(GenerateRequest(prompt, (), 2), most),
            Asked(ScoreRequest(prompt[::-1], 3), 1),
        )
        self._pairs: list[_Pair] = []
        self._fault: str | None = None

    def __call__(self, engine: Any, request_id: str) -> None:
        """Read the request in both ways."""
        try:
            state = engine.output_processor.request_states[request_id]
            state.logprobs_processor = pair = _Pair(state.logprobs_processor)
        except FAULTS as error:
            self._fault = _in_words(error)
        else:
            self._pairs.append(pair)

    def verdict(self) -> str | None:
        """Why the arrays are not to be used, or None where they hold what the lists hold."""
        if self._fault is not None:
            return self._fault
        if len(self._pairs) < len(self.requests):
            return f"the engine took in {len(self._pairs)} of {len(self.requests)} requests of its trial"
        return next(filter(None, (pair.difference() for pair in self._pairs)), None)


class _Pair:
    """A request's own processor, and arrays that are given the same outputs at the same time."""

    def __init__(self, lists: LogprobsProcessor) -> None:
        self._lists, self._arrays = lists, ArrayProcessor(lists)
        self._fault: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lists, name)

    def update_from_output(self, output: Any) -> None:
        self._lists.update_from_output(output)
        try:
            self._arrays.update_from_output(output)
        except FAULTS as error:
            self._fault = _in_words(error)

    def difference(self) -> str | None:
        if self._fault is not None:
            return self._fault
        found = (
            _difference(self._lists.logprobs, self._arrays.logprobs, way="writing", first=0),
            _difference(self._lists.prompt_logprobs, self._arrays.prompt_logprobs, way="scoring", first=1),
        )
        return next(filter(None, found), None)


def _difference(lists: Any, arrays: Any, *, way: str, first: int) -> str | None:
    """How the rows of two containers differ; None where they do not, or nothing was asked for."""
    if lists is None:
        return None
    try:
        ours = arrays.block(first=first)
    except _UNREADABLE as error:
        return _in_words(error)
    theirs = FlatRows(lists).block(first=first)
    for name in ("ids", "logprobs", "ranks"):
        if not np.array_equal(getattr(ours, name), getattr(theirs, name), equal_nan=True):
            return f"when {way}, they hold other {name}"
    return None


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
