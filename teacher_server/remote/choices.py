"""What a server of the OpenAI protocol says of one sequence, read with suspicion.

Log-probabilities come in three forms: those of `/v1/completions` (strings, one table a position), those of
`/v1/chat/completions` (with bytes), and vLLM's `prompt_logprobs` (by id, with ranks). Whichever it is, a position has
the token that came, what it was given, and the most likely tokens. What contradicts itself is a `LieError`: rows that
are shifted, missing or no numbers would be learned from without anybody noticing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.errors import EngineError
from teacher_server.logprob_rows import TopkRows
from teacher_server.remote.tokens import RemoteTokens

NOTHING = -9999.0
"""JSON has no infinity: vLLM writes this for a token that cannot come."""

CLOSE = 1e-4
"""Nats by which the same log-probability, given twice in one answer, may differ."""


class LieError(EngineError):
    """An answer that contradicts itself or the protocol."""


@dataclass(frozen=True, slots=True)
class Position:
    """One token as a server says it: its id where that can be told, its log-probability, the most likely ones by id.

    `best` is None where one of them cannot be told by its name. `rank` counts from 1, where the server gives it.
    """

    token: int | None
    logprob: float
    best: Mapping[int, float] | None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A completion: its text, its token ids where they can be told, why it ended, and its positions where given."""

    text: str
    token_ids: tuple[int, ...] | None
    finish: str | None
    positions: tuple[Position, ...] | None


def read_written(choice: Mapping[str, Any], tokens: RemoteTokens) -> Written:
    """The completion that a choice of either route holds.

    Raises:
        LieError: it is not one.
    """
    with_message = "message" in choice
    text = choice["message"].get("content") if with_message else choice.get("text")
    if not isinstance(text, str):
        raise LieError(f"an answer without text: {_short(text)}")
    said = choice.get("logprobs")
    positions = None
    if said is not None:
        positions = tuple(_of_chat(said, tokens) if with_message else _of_completion(said, tokens))
    given = choice.get("token_ids")
    if given is not None:
        token_ids: tuple[int, ...] | None = tuple(_id(each, tokens) for each in given)
    elif positions is not None and all(each.token is not None for each in positions):
        token_ids = tuple(each.token for each in positions if each.token is not None)
    else:
        token_ids = None
    if token_ids is not None and positions is not None:
        _require_same(token_ids, positions)
    return Written(text, token_ids, choice.get("finish_reason"), positions)


def read_echo(choice: Mapping[str, Any], tokens: RemoteTokens) -> list[Position]:
    """The positions of a prompt that came back with the answer, all but its first token, of which nothing is believed.

    Raises:
        LieError: they are not those of one.
    """
    said = choice.get("logprobs")
    if not isinstance(said, Mapping):
        raise LieError("no log-probabilities of the prompt, which were asked for")
    return list(_of_completion(said, tokens, first=1))


def read_prompt_logprobs(said: Any, token_ids: Sequence[int], tokens: RemoteTokens) -> list[Position]:
    """The positions of a prompt in vLLM's form, all but its first token.

    Raises:
        LieError: they are not those of these tokens.
    """
    if not isinstance(said, list) or len(said) != len(token_ids):
        count = len(said) if isinstance(said, list) else "no"
        raise LieError(f"{count} positions of log-probabilities for a prompt of {len(token_ids)} tokens")
    return [_of_table(table, token, tokens) for table, token in zip(said[1:], token_ids[1:], strict=True)]


def topk_of(positions: Sequence[Position], token_ids: Sequence[int], *, k: int) -> TopkRows | None:
    """Rows of `k` log-probabilities; None where an id cannot be told or fewer than k were given.

    The rank of a target beyond the k best is unknown to most servers: it counts as k + 1, the least that it can be.

    Raises:
        LieError: the positions are not those of the tokens, or contradict themselves.
    """
    if len(positions) != len(token_ids):
        raise LieError(f"{len(positions)} rows of log-probabilities for {len(token_ids)} tokens")
    _require_same(token_ids, positions)
    rows = [_ordered(position, token, k=k) for position, token in zip(positions, token_ids, strict=True)]
    if any(row is None for row in rows):
        return None
    known = [row for row in rows if row is not None]
    best = np.array([row.best for row in known], dtype=np.float64).reshape(len(known), k, 2)
    return TopkRows(
        topk_ids=best[:, :, 0].astype(np.int32),
        topk_logprobs=best[:, :, 1].astype(np.float32),
        target_logprobs=np.array([each.logprob for each in positions], dtype=np.float32),
        target_ranks=np.array([row.rank for row in known], dtype=np.int32),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    best: list[tuple[int, float]]
    rank: int


def _ordered(position: Position, token: int, *, k: int) -> _Row | None:
    """The k best of a position and the rank of its token."""
    if position.best is None or len(position.best) < k:
        return None
    best = sorted(position.best.items(), key=lambda item: -item[1])
    kept = best[:k]
    held = position.best.get(token)
    if held is not None and abs(held - position.logprob) > CLOSE:
        raise LieError(
            f"token {token} has the log-probability {position.logprob:.4f} and {held:.4f} among the most likely ones: "
            "the rows do not belong to the tokens"
        )
    if held is None and position.logprob > kept[-1][1] + CLOSE:
        raise LieError(
            f"token {token} has the log-probability {position.logprob:.4f} and is not among the most likely ones, of "
            f"which the last has {kept[-1][1]:.4f}: the rows do not belong to the tokens"
        )
    if position.rank is not None:
        return _Row(kept, position.rank)
    above = sum(value > position.logprob for _, value in kept)
    return _Row(kept, above + 1 if any(number == token for number, _ in kept) else k + 1)


def _of_completion(said: Mapping[str, Any], tokens: RemoteTokens, *, first: int = 0) -> Iterator[Position]:
    """Positions of `/v1/completions`, from `first` on."""
    names, given, tables = said.get("tokens"), said.get("token_logprobs"), said.get("top_logprobs")
    if not isinstance(names, list) or not isinstance(given, list) or len(names) != len(given):
        raise LieError("log-probabilities without a token for each, or the other way round")
    if not tables:
        tables = [{}] * len(names)
    if len(tables) != len(names):
        raise LieError(f"{len(tables)} tables of the most likely tokens for {len(names)} tokens")
    for name, value, table in list(zip(names, given, tables, strict=True))[first:]:
        best = _by_id([(key, None, each) for key, each in (table or {}).items()], tokens)
        yield Position(tokens.id_of(str(name)), _logprob(value), best)


def _of_chat(said: Mapping[str, Any], tokens: RemoteTokens) -> Iterator[Position]:
    content = said.get("content")
    if not isinstance(content, list):
        raise LieError("log-probabilities of a conversation without their content")
    for each in content:
        best = _by_id([(one["token"], one.get("bytes"), one["logprob"]) for one in each["top_logprobs"]], tokens)
        yield Position(tokens.id_of(each["token"], each.get("bytes")), _logprob(each["logprob"]), best)


def _of_table(table: Any, token: int, tokens: RemoteTokens) -> Position:
    if not isinstance(table, Mapping) or str(token) not in table:
        raise LieError(f"no log-probability of token {token} of the prompt: the rows do not belong to the tokens")
    facts = table[str(token)]
    # The token itself is always there, also where it is not among those that were asked for.
    best = {_id(int(number), tokens): _logprob(each["logprob"]) for number, each in table.items()}
    return Position(token, _logprob(facts["logprob"]), best, rank=facts.get("rank"))


def _by_id(
    entries: Sequence[tuple[str, Sequence[int] | None, Any]], tokens: RemoteTokens
) -> Mapping[int, float] | None:
    """Log-probabilities by id; None where one cannot be told, or two are spelt alike."""
    found: dict[int, float] = {}
    for name, raw, value in entries:
        number = tokens.id_of(name, raw)
        if number is None or number in found:
            return None
        found[number] = _logprob(value)
    return found


def _logprob(value: Any) -> float:
    """A log-probability in nats; null and the placeholder for infinity are -inf."""
    if value is None:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > CLOSE:
        raise LieError(f"{_short(value)} is no log-probability")
    return -math.inf if value <= NOTHING else float(value)


def _id(value: Any, tokens: RemoteTokens) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < tokens.vocab:
        raise LieError(f"{_short(value)} is no token id of a vocabulary of {tokens.vocab}: another tokenizer")
    return value


def _require_same(token_ids: Sequence[int], positions: Sequence[Position]) -> None:
    """Refuse positions that speak of other tokens."""
    if len(token_ids) != len(positions):
        raise LieError(f"{len(positions)} rows of log-probabilities for {len(token_ids)} tokens")
    for token, position in zip(token_ids, positions, strict=True):
        if position.token is not None and position.token != token:
            raise LieError(f"a row of token {position.token} stands where token {token} is: the rows are shifted")


def _short(value: Any) -> str:
    return repr(value)[:40]
