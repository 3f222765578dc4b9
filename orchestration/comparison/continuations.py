"""Continuations of texts, put to engines: how likely they are, whether they are the greedy choice, what is written.

This is what a benchmark harness asks of a model (`lm_harness`), in its conventions: context and continuation become
tokens together, white space at the end of a context belongs to the continuation, a text that does not fit loses its
beginning, and every token of a long text is predicted exactly once. Log-probabilities are in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import GenerateRequest, ScoreRequest, TeacherRecord
from cache.protocols import Failure
from configs import DataError, EngineError, ModelError
from orchestration.cluster.engine_pool import EnginePool
from orchestration.inputs.models import ModelFiles

SCORED_LOGPROBS = 1
"""Log-probabilities a position: that of the likeliest token, beside which that of the token itself always comes."""

ANSWER_TOKENS = 256
"""Tokens of an answer, where a task does not say how many: the harness's own default."""

BATCH = 1024
"""Requests that are handed to the engines at once; the token ids of a large benchmark would fill the memory."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An answer as a task wants it: up to the first of the strings `until`, at most `tokens` long."""

    until: tuple[str, ...]
    tokens: int


class Continuations:
    """A model that engines serve, asked for continuations. `shortened` counts the contexts that did not fit."""

    def __init__(self, files: ModelFiles, pool: EnginePool, *, longest: int) -> None:
        """`longest` is the number of tokens that the engines read, answer included.

        Raises:
            ModelError: its tokenizer has no token that a text could begin with.
        """
        tokenizer = files.tokenizer
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if prefix is None:
            raise ModelError(f"{files.label}: its tokenizer has neither BOS nor EOS, to begin a text with: add one")
        self.files, self.prefix, self.shortened = files, int(prefix), 0
        self._pool, self._longest = pool, longest

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each context and continuation its log-probability, and whether no token of it had a likelier rival.

        Raises:
            DataError: a continuation is empty, or longer than the engines read.
            EngineError: a request was not answered.
        """
        found = []
        for batch in _batches(pairs):
            requests = [self._scored(*split_pair(self.files.tokenizer, *pair, prefix=self.prefix)) for pair in batch]
            found += [(float(logprobs(one).sum()), is_greedy(one)) for one in self._answers(requests)]
        return found

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """The log-probability of each text as a whole; a long one is read in windows.

        Raises:
            EngineError: a request was not answered.
        """
        found = []
        for text in texts:
            ids = self.files.tokenizer.encode(text, add_special_tokens=False)
            # The engine samples one token after what it scores, and throws it away.
            windows = list(rolling_windows(ids, prefix=self.prefix, longest=self._longest - 1))
            found.append(sum(float(logprobs(one).sum()) for one in self._answers(windows)))
        return found

    def written(self, asked: Sequence[tuple[str, Wanted]]) -> list[str]:
        """A greedy answer to each context, cut before the first string that ends it.

        Raises:
            DataError: an answer leaves no room for a context.
            EngineError: a request was not answered.
        """
        found = []
        for batch in _batches(asked):
            answers = self._answers([self._asked(context, wanted.tokens) for context, wanted in batch])
            for (_, wanted), record in zip(batch, answers, strict=True):
                text = self.files.tokenizer.decode(record.response_ids, skip_special_tokens=True)
                found.append(cut_before(text, wanted.until))
        return found

    def _scored(self, context: tuple[int, ...], more: tuple[int, ...]) -> ScoreRequest:
        room = self._longest - 1 - len(more)
        if not more or room < 1:
            most = self._longest - 2
            raise DataError(f"a continuation of {len(more)} tokens cannot be scored: the engine takes 1 to {most}")

        kept = self._fitted(context, room)
        return ScoreRequest((*kept, *more), len(kept))

    def _asked(self, context: str, tokens: int) -> GenerateRequest:
        room = self._longest - tokens
        if room < 1:
            raise DataError(f"answers of {tokens} tokens leave no room for a question: engines read {self._longest}")

        ids = encoded(self.files.tokenizer, context) or (self.prefix,)
        return GenerateRequest(self._fitted(ids, room), self.files.stop_ids, tokens)

    def _fitted(self, context: tuple[int, ...], room: int) -> tuple[int, ...]:
        self.shortened += len(context) > room
        return context[-room:]

    def _answers(self, requests: Sequence[GenerateRequest | ScoreRequest]) -> list[TeacherRecord]:
        if not requests:
            return []
        records = []
        for outcome in self._pool.answer(requests, k=SCORED_LOGPROBS).outcomes:
            if isinstance(outcome, Failure):
                raise EngineError(f"a question was not answered: {outcome.reason}")
            records.append(outcome)
        return records


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The ids of a text, with the tokenizer's special tokens unless the text spells BOS itself (a chat template)."""
    spelt = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return tuple(tokenizer.encode(text, add_special_tokens=not spelt))


def split_pair(
    tokenizer: PreTrainedTokenizerBase, context: str, continuation: str, *, prefix: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of a context, and those that its continuation adds; `prefix` stands in for an empty context."""
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    before = encoded(tokenizer, bare) if bare else ()
    if before:
        return before, encoded(tokenizer, bare + continuation)[len(before) :]
    more = tuple(tokenizer.encode(continuation, add_special_tokens=False))
    # A continuation that begins with the prefix itself is not given it twice.
    return ((prefix,), more[1:]) if more[:1] == (prefix,) else ((prefix,), more)


def rolling_windows(ids: Sequence[int], *, prefix: int, longest: int) -> Iterator[ScoreRequest]:
    """Requests of at most `longest` tokens that together score every id once.

    All but the last begin with one token of context; the last has as much as it can take.
    """
    step = longest - 1
    if ids:
        yield ScoreRequest((prefix, *ids[:step]), 1)
    for start in range(step, len(ids), step):
        end = min(start + step, len(ids))
        yield ScoreRequest(tuple(ids[end - longest : end]), start - (end - longest))


def logprobs(record: TeacherRecord) -> np.ndarray:
    """Log-probabilities of the response's tokens, in float64."""
    if record.target_logprobs is None:
        raise EngineError("the engine gave no log-probabilities for a sequence that it was to score")
    return record.target_logprobs.astype(np.float64)


def is_greedy(record: TeacherRecord) -> bool:
    """Whether every token of the response is as likely as the likeliest.

    Engines count a rival that is exactly as likely into the rank, so that in bfloat16 both would stand second.
    """
    if record.target_logprobs is None or record.topk_logprobs is None:
        raise EngineError("the engine gave no log-probabilities for a sequence that it was to score")
    return bool((record.target_logprobs >= record.topk_logprobs[:, 0]).all())


def cut_before(text: str, until: Sequence[str]) -> str:
    """The text up to the first of the strings `until`."""
    places = [place for place in (text.find(end) for end in until if end) if place >= 0]
    return text[: min(places, default=len(text))]


def wanted_of(settings: Mapping[str, Any]) -> Wanted:
    """What a task's generation settings want.

    Raises:
        DataError: sampled answers, which are not the same twice.
    """
    temperature = float(settings.get("temperature") or 0.0)
    if settings.get("do_sample", temperature > 0) and settings.get("temperature") != 0:
        raise DataError("the task wants sampled answers (do_sample, temperature): only greedy ones are asked for")
    until = settings.get("until") or ()
    named = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    tokens = next((int(settings[name]) for name in named if settings.get(name) is not None), ANSWER_TOKENS)
    return Wanted((until,) if isinstance(until, str) else tuple(until), tokens)


def _batches(asked: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (asked[start : start + BATCH] for start in range(0, len(asked), BATCH))
