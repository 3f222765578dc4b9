"""What an engine can be asked: the limits of a request, and its sampling settings in the engine's words."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol, TypedDict

from cache.keys import engine_seed, generation_key
from cache.protocols import Outcome
from cache.records import GenerateRequest, ScoreRequest
from configs.schema import SMALLEST_TEMPERATURE
from teacher_server.logprob_rows import wanted_ids


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the number `k` of log-probabilities that its answer keeps a position.

    `comes_back` says that its answer, with more tokens behind it, will be asked about again with the same
    `sampling_seed`, which no other sequence has: an engine may keep what it computed.
    """

    request: GenerateRequest | ScoreRequest
    k: int
    comes_back: bool = False


class StepwiseSource(Protocol):
    """An engine that hands over what each of its steps has finished, all at once (`FakeTeacher`, `VllmEngine`)."""

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """See `VllmEngine.work`."""
        ...


def most_tokens(request: GenerateRequest | ScoreRequest) -> int:
    """Tokens that a teacher reads and writes for a request whose answer is as long as it may be."""
    if isinstance(request, GenerateRequest):
        return len(request.prompt_ids) + request.max_new_tokens
    return len(request.token_ids)


class SamplingArguments(TypedDict):
    """Keyword arguments of `vllm.SamplingParams` that are the same for every kind of request."""

    flat_logprobs: bool
    detokenize: bool
    ignore_eos: bool


class GenerateArguments(SamplingArguments):
    """Keyword arguments of `vllm.SamplingParams` for a completion."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    seed: int | None
    max_tokens: int
    stop_token_ids: list[int]
    logprobs: int | None


class ScoreArguments(SamplingArguments):
    """Keyword arguments of `vllm.SamplingParams` for scoring; the one sampled token is thrown away."""

    temperature: float
    max_tokens: int
    prompt_logprobs: int


_ALWAYS: SamplingArguments = {"flat_logprobs": True, "detokenize": False, "ignore_eos": True}
"""Rows without an object a token, token ids only, and no stops but the request's own."""


def generate_arguments(request: GenerateRequest, *, seed: int, logprobs: int) -> GenerateArguments:
    """The engine's settings for writing `request`.

    Args:
        request: What is asked.
        seed: The engine's seed for this request; greedy requests get none, because a seeded request is sampled
            apart from its batch.
        logprobs: Log-probabilities a token; 0 asks for none.
    """
    greedy = request.temperature == 0
    return {
        **_ALWAYS,
        "temperature": request.temperature,
        "top_p": 1.0 if greedy else request.top_p,
        "top_k": 0 if greedy else request.top_k,
        "min_p": 0.0 if greedy else request.min_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "repetition_penalty": request.repetition_penalty,
        "seed": None if greedy else seed,
        "max_tokens": request.max_new_tokens,
        "stop_token_ids": list(request.stop_ids),
        "logprobs": logprobs or None,
    }


def score_arguments(*, logprobs: int) -> ScoreArguments:
    """The engine's settings for scoring a sequence with `logprobs` log-probabilities a token."""
    return {**_ALWAYS, "temperature": 0.0, "max_tokens": 1, "prompt_logprobs": logprobs}


def prompt_and_arguments(
    asked: Asked, *, identity_digest: str, vocab: int, matrix_rows: int
) -> tuple[tuple[int, ...], GenerateArguments | ScoreArguments]:
    """What the engine is handed: token ids, and settings with the seed of the request's generation key."""
    request, logprobs = asked.request, wanted_ids(asked.k, vocab=vocab, matrix_rows=matrix_rows)
    if isinstance(request, ScoreRequest):
        return request.token_ids, score_arguments(logprobs=logprobs)
    seed = engine_seed(generation_key(identity_digest, request))
    return request.prompt_ids, generate_arguments(request, seed=seed, logprobs=logprobs)


def refusal(request: GenerateRequest | ScoreRequest, *, vocab: int, max_model_len: int) -> str | None:
    """Why an engine cannot answer `request`, in one line, or None.

    Args:
        request: What is asked.
        vocab: V, the number of token ids the tokenizer knows.
        max_model_len: Tokens of the longest sequence, prompt and answer together.
    """
    if isinstance(request, ScoreRequest):
        return _score_refusal(request, max_model_len=max_model_len) or _unknown_id(request.token_ids, vocab=vocab)
    return _generate_refusal(request, max_model_len=max_model_len) or _unknown_id(request.prompt_ids, vocab=vocab)


def _score_refusal(request: ScoreRequest, *, max_model_len: int) -> str | None:
    length = len(request.token_ids)
    if not 0 < request.prompt_len < length:
        return f"prompt_len={request.prompt_len} leaves no prompt or no response of a sequence of {length} tokens"
    if length + 1 > max_model_len:
        return f"a sequence of {length} tokens needs max_model_len >= {length + 1}, which is {max_model_len}"
    return None


def _generate_refusal(request: GenerateRequest, *, max_model_len: int) -> str | None:
    prompt, answer = len(request.prompt_ids), request.max_new_tokens
    if prompt == 0:
        return "the prompt is empty"
    if answer < 1:
        return f"max_new_tokens={answer} must be at least 1"
    if prompt + answer > max_model_len:
        return f"{prompt} prompt tokens and max_new_tokens={answer} exceed max_model_len={max_model_len}"
    if request.temperature != 0 and request.temperature < SMALLEST_TEMPERATURE:
        return f"temperature={request.temperature} must be 0 or at least {SMALLEST_TEMPERATURE}"
    if not 0 < request.top_p <= 1:
        return f"top_p={request.top_p} must lie in (0, 1]"
    if not 0 <= request.min_p <= 1:
        return f"min_p={request.min_p} must lie in [0, 1]"
    return None


def _unknown_id(token_ids: tuple[int, ...], *, vocab: int) -> str | None:
    if min(token_ids) < 0 or max(token_ids) >= vocab:
        strange = next(token for token in token_ids if not 0 <= token < vocab)
        return f"token id {strange} is outside the vocabulary of {vocab}"
    return None
