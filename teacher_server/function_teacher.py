"""A teacher that is one function: what comes next after these tokens. Every other part of a source is here.

It answers one request after the other and asks the function once a token, which is slow, exact and deterministic: for
tests, for small models without an engine, and for teachers that are not neural networks at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from cache.identity import TeacherIdentity
from cache.keys import engine_seed, generation_key
from cache.protocols import Failure, Outcome
from cache.records import Finish, GenerateRequest, Origin, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from teacher_server.answers import make_record
from teacher_server.logprob_rows import TopkRows
from teacher_server.requests import Asked, refusal

if TYPE_CHECKING:
    # It brings transformers.
    from teacher_server.grammar import Grammars

NextLogprobs = Callable[[Sequence[int]], Float32[np.ndarray, " V"]]
"""Log-probabilities of the next token, in nats at temperature 1, normalised over the vocabulary."""


class FunctionTeacher:
    """A `SequenceSource` over a function from tokens to the log-probabilities of the next one.

    Args:
        identity: Stamped on the records as a real engine does.
        vocab: V, the length of what `next_logprobs` returns.
        next_logprobs: Must depend on nothing but the tokens.
        max_model_len: Tokens of the longest sequence, prompt and answer together.
        grammars: What reads the grammars of requests; without it a request that has one is refused.
    """

    def __init__(
        self,
        identity: TeacherIdentity,
        *,
        vocab: int,
        next_logprobs: NextLogprobs,
        max_model_len: int = 4096,
        grammars: Grammars | None = None,
    ) -> None:
        self.identity = identity
        self._digest = identity.digest()
        self._vocab = vocab
        self._next_logprobs = next_logprobs
        self._max_model_len = max_model_len
        self._grammars = grammars

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """One completion a request, in order; penalties are refused. See `SequenceSource.generate`.

        Raises:
            EngineError: `k` is larger than the vocabulary.
        """
        self._require_k(k, least=0)
        return ((position, self._write(request, k=k)) for position, request in enumerate(requests))

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """The rows of given sequences, in order. See `SequenceSource.score`.

        Raises:
            EngineError: `k` is 0 or larger than the vocabulary.
        """
        self._require_k(k, least=1)
        return ((position, self._score(request, k=k)) for position, request in enumerate(requests))

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Requests of both kinds, in order, one answer at a time. See `VllmEngine.work`."""
        position = 0
        for each in asked:
            if each is None:
                continue
            if isinstance(each.request, GenerateRequest):
                [(_, outcome)] = self.generate([each.request], k=each.k)
            else:
                [(_, outcome)] = self.score([each.request], k=each.k)
            yield [(position, outcome)]
            position += 1

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self._vocab:
            raise EngineError(f"k={k} is outside {least}..{self._vocab}, what this engine can return")

    def _write(self, request: GenerateRequest, *, k: int) -> TeacherRecord | Failure:
        reason = refusal(request, vocab=self._vocab, max_model_len=self._max_model_len)
        penalties = (request.presence_penalty, request.frequency_penalty, request.repetition_penalty)
        if reason is None and penalties != (0.0, 0.0, 1.0):
            reason = "this teacher does not support penalties"
        if reason is None and request.grammar:
            reason = "it reads no grammars" if self._grammars is None else self._grammars.refusal(request.grammar)
        if reason is not None:
            return Failure(reason)
        held = self._grammars.begin(request.grammar) if self._grammars is not None and request.grammar else None
        noise = np.random.default_rng(engine_seed(generation_key(self._digest, request)))
        tokens = list(request.prompt_ids)
        finish: Finish = "length"
        for _ in range(request.max_new_tokens):
            logprobs = self._next_logprobs(tokens)
            if held is not None:
                logprobs = np.where(held.allowed(), logprobs, np.float32(-np.inf))
            tokens.append(_pick(logprobs, request=request, noise=noise))
            if held is not None:
                held.take(tokens[-1])
            if tokens[-1] in request.stop_ids:
                finish = "stop"
                break
        return self._record(tokens, prompt_len=len(request.prompt_ids), k=k, finish=finish, origin="decode")

    def _score(self, request: ScoreRequest, *, k: int) -> TeacherRecord | Failure:
        reason = refusal(request, vocab=self._vocab, max_model_len=self._max_model_len)
        if reason is not None:
            return Failure(reason)
        return self._record(request.token_ids, prompt_len=request.prompt_len, k=k, finish="given", origin="prefill")

    def _record(
        self, tokens: Sequence[int], *, prompt_len: int, k: int, finish: Finish, origin: Origin
    ) -> TeacherRecord:
        rows = None
        if k:
            ends = range(prompt_len, len(tokens))
            logprobs = np.stack([self._next_logprobs(tokens[:end]) for end in ends])
            rows = _keep(logprobs, targets=np.array(tokens[prompt_len:]), k=k)
        return make_record(
            rows,
            identity_digest=self._digest,
            token_ids=tokens,
            prompt_len=prompt_len,
            finish=finish,
            origin=origin,
            vocab=self._vocab,
        )


def _keep(logprobs: Float32[np.ndarray, "S V"], *, targets: np.ndarray, k: int) -> TopkRows:
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :k].astype(np.int32)
    target_logprobs = np.take_along_axis(logprobs, targets[:, None], axis=1)
    return TopkRows(
        topk_ids=order,
        topk_logprobs=np.take_along_axis(logprobs, order, axis=1),
        target_logprobs=target_logprobs[:, 0],
        target_ranks=1 + (logprobs > target_logprobs).sum(axis=1, dtype=np.int32),
    )


def _pick(logprobs: Float32[np.ndarray, " V"], *, request: GenerateRequest, noise: np.random.Generator) -> int:
    """The next token: the best one, or one drawn at the request's temperature, top-k, top-p and min-p."""
    if request.temperature == 0:
        return int(logprobs.argmax())
    scaled = logprobs.astype(np.float64) / request.temperature
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    ranked = probs[order]
    kept = _kept(ranked, request=request)
    return int(noise.choice(order[:kept], p=ranked[:kept] / ranked[:kept].sum()))


def _kept(ranked: Float64[np.ndarray, " V"], *, request: GenerateRequest) -> int:
    """How many of the descending probabilities survive; the one that crosses top-p is kept, and at least one is."""
    kept = request.top_k if request.top_k > 0 else len(ranked)
    before = np.cumsum(ranked) - ranked
    kept = min(kept, int((before < request.top_p).sum()), int((ranked >= request.min_p * ranked[0]).sum()))
    return max(kept, 1)
