"""What a teacher believed where each token came: the token's log-probability, and the most likely ones beside it.

The cache keeps the log-probability of the token itself exactly and those of the most likely rounded. Told side by side
they have to agree: a token that is among the most likely is told with one number, and none that was less likely than it
is told with a larger one, nor the other way round. So whoever compares a token with the maximum learns whether it was
the most likely one (lm-evaluation-harness does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.records import TeacherRecord
from teacher_server.http.openai.answer_bodies import (
    LEAST,
    ChatToken,
    CompletionLogProbs,
    PromptLogProbs,
    PromptToken,
    TopToken,
)
from teacher_server.http.pieces import Pieces, numbered


@dataclass(frozen=True, slots=True)
class Belief:
    """About one token that came. `rank` counts from 1; `top` are the most likely ones with their log-probabilities."""

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]

    @property
    def told(self) -> tuple[tuple[int, float], ...]:
        """The most likely ones, and the token itself behind them where it is none of them."""
        if any(token == self.token for token, _ in self.top):
            return self.top
        return (*self.top, (self.token, self.logprob))


Beliefs = Sequence[Belief | None]
"""None where nothing was believed: about the first token of a sequence."""


def beliefs_of(record: TeacherRecord, *, top: int) -> list[Belief]:
    """About each response token of a record that has log-probabilities, with `top` of the most likely ones."""
    assert record.topk_ids is not None and record.topk_logprobs is not None
    assert record.target_logprobs is not None and record.target_ranks is not None
    rows = zip(
        record.response_ids.tolist(),
        record.target_logprobs.tolist(),
        record.target_ranks.tolist(),
        record.topk_ids[:, :top].tolist(),
        record.topk_logprobs[:, :top].tolist(),
        strict=True,
    )
    return [_belief(*row) for row in rows]


def _belief(token: int, logprob: float, rank: int, ids: list[int], logprobs: list[float]) -> Belief:
    more = float(np.nextafter(np.float32(logprob), np.float32(np.inf)))
    top = []
    for place, (each, value) in enumerate(zip(ids, logprobs, strict=True), 1):
        agreeing = logprob if each == token else max(value, more) if place < rank else min(value, logprob)
        top.append((each, max(agreeing, LEAST)))
    return Belief(token, max(logprob, LEAST), rank, tuple(top))


def completion_logprobs(
    beliefs: Beliefs, *, token_ids: Sequence[int], offsets: list[int], pieces: Pieces
) -> CompletionLogProbs:
    """Token by token as completions have them."""
    return CompletionLogProbs(
        tokens=[pieces.name(token) for token in token_ids],
        token_logprobs=[None if each is None else each.logprob for each in beliefs],
        top_logprobs=[None if each is None else _by_name(each, pieces=pieces) for each in beliefs],
        text_offset=offsets,
    )


def chat_tokens(beliefs: Sequence[Belief], *, pieces: Pieces) -> list[ChatToken]:
    """Token by token as chats have them."""
    return [
        ChatToken(
            token=pieces.name(each.token),
            logprob=each.logprob,
            bytes=_bytes(each.token, pieces=pieces),
            top_logprobs=[
                TopToken(token=pieces.name(token), logprob=logprob, bytes=_bytes(token, pieces=pieces))
                for token, logprob in each.top
            ],
        )
        for each in beliefs
    ]


def prompt_logprobs(beliefs: Beliefs, *, pieces: Pieces) -> PromptLogProbs:
    """Of a prompt, by token id, as vLLM has them."""
    return [None if each is None else _by_id(each, pieces=pieces) for each in beliefs]


def _by_id(belief: Belief, *, pieces: Pieces) -> dict[str, PromptToken]:
    return {
        str(token): PromptToken(
            logprob=logprob,
            rank=belief.rank if token == belief.token else place,
            decoded_token=pieces.name(token),
        )
        for place, (token, logprob) in enumerate(belief.told, 1)
    }


def _by_name(belief: Belief, *, pieces: Pieces) -> dict[str, float]:
    """Tokens of one name are told apart by their ids; the one that came keeps the name that `tokens` has."""
    own = pieces.name(belief.token)
    named: dict[str, float] = {}
    for token, logprob in belief.told:
        name = pieces.name(token)
        taken = name in named or (name == own and token != belief.token)
        named[numbered(token) if taken else name] = logprob
    return named


def _bytes(token: int, *, pieces: Pieces) -> list[int] | None:
    return list(pieces.piece(token)) or None
