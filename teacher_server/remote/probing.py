"""What a server of the OpenAI protocol can do, found out by asking it: what it says of itself is often not so.

Every ability is tried with a short request whose answer shows it. A field that a server does not know it may refuse or
ignore: both count as lacking.

    takes_ids     the prompt goes as token ids, and the server counts as many
    id_fields     it says which ids it wrote where these fields ask for them
    most_k        log-probabilities a position that lead to ids, at most those that were asked for
    scoring       log-probabilities of a given text, and by which field
    takes_stops   it ends at the ids it is told to, keeps the last, and at no others
    samplers      `top_k`, `min_p`: at a high temperature they make it greedy

The *fingerprint* is what it believes about a few fixed texts (or, where it tells nothing, what it writes after them). A
name can be given to another model over night: whoever comes back compares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from teacher_server.insisting import Refused
from teacher_server.remote.calls import Server
from teacher_server.remote.choices import LieError, Position, Written, read_echo, read_prompt_logprobs, read_written
from teacher_server.remote.tokens import RemoteTokens

COMPLETIONS, CHAT = "completions", "chat/completions"

TEXTS = (
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "def add(a, b):\n    return a + b\n",
    "In 1969 three men flew to the Moon; two of them walked on it.",
)
"""What a fingerprint is taken of."""

DRIFT_NATS = 0.1
"""Mean difference of log-probabilities between two fingerprints of one model: rounding and batching stay below 0.03."""

_FEW = 4
_NOT_KNOWN = frozenset({400, 404, 405, 415, 422, 500, 501})
"""Statuses that say: not in this way. Some servers answer 500 to a body that they cannot read (llama-cpp-python)."""

Scoring = Literal["prompt_logprobs", "echo", "none"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """See the module's docstring. `model` is how the server calls what answers; `chat`: it takes no other prompts."""

    model: str
    chat: bool
    takes_ids: bool
    id_fields: tuple[str, ...]
    most_k: int
    scoring: Scoring
    takes_stops: bool
    samplers: frozenset[str]

    @property
    def gives_ids(self) -> bool:
        """Whether it says which ids it wrote."""
        return bool(self.id_fields)

    @property
    def kept_k(self) -> int:
        """Log-probabilities a position that whole answers come with.

        None where it does not tell the end of an answer and scores no given texts: each that ends is the text alone.
        """
        return self.most_k if self.takes_stops or self.scoring != "none" else 0

    def told(self) -> str:
        """What a user is told, in a line."""
        way = "conversations" if self.chat else "token ids" if self.takes_ids else "texts"
        beliefs = f"up to {self.kept_k} log-probabilities a token" if self.kept_k else "no log-probabilities"
        if self.most_k and not self.kept_k:
            beliefs += " of the end of an answer"
        scores = "scores given texts" if self.scoring != "none" else "scores no given texts"
        ends = "at the stops it is given" if self.takes_stops else "where it wants to"
        return f"takes {way}, gives {beliefs}, {scores}, ends {ends}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a server says of `TEXTS`: the log-probability of each token, or else what it writes after them."""

    logprobs: tuple[tuple[float, ...], ...] = ()
    texts: tuple[str, ...] = ()

    def difference(self, other: Self) -> str | None:
        """Why two are not of one model, in one line, or None.

        Two answers of one model may differ (batches are rounded differently, and a server may draw at temperature 0):
        of texts alone it is only said that it is another one where all of them differ.
        """
        if bool(self.logprobs) != bool(other.logprobs):
            return "log-probabilities of given texts are told at one time and not at the other"
        if self.logprobs and other.logprobs:
            if [len(each) for each in self.logprobs] != [len(each) for each in other.logprobs]:
                return "it counts other tokens in the same texts"
            before, now = (np.array([x for each in one.logprobs for x in each]) for one in (self, other))
            # Equal infinities differ by nothing.
            apart = np.abs(np.where(before == now, 0.0, np.clip(before, -50, 0) - np.clip(now, -50, 0)))
            mean = float(apart.mean())
            return None if mean <= DRIFT_NATS else f"log-probabilities of the same texts differ by {mean:.2f} nats"
        if self.texts and other.texts and not any(map(str.__eq__, self.texts, other.texts)):
            return f"after the same text it writes {other.texts[0][:40]!r} and not {self.texts[0][:40]!r}"
        return None

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"logprobs": [list(each) for each in self.logprobs], "texts": list(self.texts)}

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        logprobs = tuple(tuple(float(x) for x in each) for each in fields["logprobs"])
        return cls(logprobs, tuple(str(each) for each in fields["texts"]))


class Prober:
    """Asks a server what it can do.

    Args:
        server: Who is asked.
        model: The name that it is asked under.
        tokens: The tokenizer that its answers are read with.
    """

    def __init__(self, server: Server, *, model: str, tokens: RemoteTokens) -> None:
        self._server, self._model, self._tokens = server, model, tokens

    def abilities(self, *, k: int) -> Abilities:
        """What it can do, with up to `k` log-probabilities a position.

        Raises:
            Refused: it lets nobody in with this key, or has no such model.
            EngineError: it cannot be reached, or speaks another protocol.
        """
        ids = self._tokens.ids(TEXTS[0])
        by_ids = None if ids is None else self._try(COMPLETIONS, prompt=ids)
        takes_ids = by_ids is not None and _read(by_ids) in (None, len(ids or ()))
        first = by_ids if takes_ids else self._try(COMPLETIONS, prompt=TEXTS[0])
        if first is None:
            return self._chat_abilities(k=k)
        prompt: list[int] | str = ids if takes_ids and ids is not None else TEXTS[0]
        id_fields = self._id_fields(prompt)
        more = dict.fromkeys(id_fields, True)
        return Abilities(
            model=str(first.get("model", self._model)),
            chat=False,
            takes_ids=takes_ids,
            id_fields=id_fields,
            most_k=self._most_k(COMPLETIONS, k=k, name="logprobs", prompt=prompt, **more),
            scoring=self._scoring(ids, k=min(k, 1)) if takes_ids and ids is not None else "none",
            takes_stops=self._takes_stops(prompt, more),
            samplers=self._samplers(prompt, first),
        )

    def fingerprint(self, abilities: Abilities) -> Fingerprint:
        """What it says of `TEXTS`.

        Raises:
            EngineError: it cannot be reached, or an answer contradicts itself.
        """
        if abilities.scoring != "none":
            scored = [self.scored(self._tokens.ids(text) or [], k=1, by=abilities.scoring) for text in TEXTS]
            return Fingerprint(logprobs=tuple(tuple(each.logprob for each in one) for one in scored))
        texts: list[str] = []
        for text in TEXTS:
            if abilities.chat:
                said = self._server.post(CHAT, self._body(messages=_turn(text)))
            else:
                prompt = self._tokens.ids(text) if abilities.takes_ids else text
                said = self._server.post(COMPLETIONS, self._body(prompt=prompt))
            texts.append(read_written(only_choice(said), self._tokens).text)
        return Fingerprint(texts=tuple(texts))

    def scored(self, token_ids: Sequence[int], *, k: int, by: Scoring) -> list[Position]:
        """What the server believes about a sequence, all tokens but the first.

        Raises:
            Refused: it does not do it in this way.
            EngineError: it cannot be reached, or its answer contradicts itself.
        """
        body: dict[str, Any] = {"prompt": list(token_ids), "max_tokens": 1}
        if by == "prompt_logprobs":
            said = self._server.post(COMPLETIONS, self._body(**body, prompt_logprobs=k))
            return read_prompt_logprobs(only_choice(said).get("prompt_logprobs"), token_ids, self._tokens)
        said = self._server.post(COMPLETIONS, self._body(**body, echo=True, logprobs=k))
        # One token more is written: not every server takes none.
        positions = read_echo(only_choice(said), self._tokens)[: len(token_ids) - 1]
        if len(positions) != len(token_ids) - 1:
            raise LieError(f"{len(positions) + 1} positions for a prompt of {len(token_ids)} tokens")
        return positions

    def _chat_abilities(self, *, k: int) -> Abilities:
        said = self._server.post(CHAT, self._body(messages=_turn(TEXTS[0])))
        return Abilities(
            model=str(said.get("model", self._model)),
            chat=True,
            takes_ids=False,
            id_fields=(),
            most_k=self._most_k(CHAT, k=k, name="top_logprobs", messages=_turn(TEXTS[0]), logprobs=True),
            scoring="none",
            takes_stops=False,
            samplers=frozenset(),
        )

    def _id_fields(self, prompt: list[int] | str) -> tuple[str, ...]:
        """The fields by which it says which ids it wrote: of log-probabilities too, or of the answer alone."""
        for fields in (("return_token_ids", "return_tokens_as_token_ids"), ("return_token_ids",)):
            told = self._try(COMPLETIONS, prompt=prompt, **dict.fromkeys(fields, True))
            if told is not None and "token_ids" in only_choice(told):
                return fields
        return ()

    def _most_k(self, path: str, *, k: int, name: str, **body: Any) -> int:
        """Log-probabilities that it gives a position, whose tokens can all be told."""
        for wanted in sorted({min(k, most) for most in (k, 20, 5, 1)} - {0}, reverse=True):
            said = self._try(path, **body, **{name: wanted})
            if said is None:
                continue
            try:
                written = read_written(only_choice(said), self._tokens)
            except LieError:
                return 0
            found = _least_best(written)
            if found:
                return min(found, wanted)
        return 0

    def _scoring(self, ids: Sequence[int], *, k: int) -> Scoring:
        """By which field it scores; the positions must be believable at least."""
        ways: tuple[Scoring, ...] = ("prompt_logprobs", "echo")
        for way in ways:
            try:
                positions = self.scored(ids, k=max(k, 1), by=way)
            except LieError:
                continue
            except Refused as error:
                if error.status not in _NOT_KNOWN:
                    raise
                continue
            if all(math.isfinite(each.logprob) for each in positions):
                return way
        return "none"

    def _takes_stops(self, prompt: list[int] | str, extras: Mapping[str, Any]) -> bool:
        """Whether it ends at an id that it is told, once it has written it, and not at its own end."""
        free = self._written(prompt, extras, max_tokens=_FEW)
        if free is None or not free.token_ids:
            return False
        stop = free.token_ids[0]
        held = self._written(prompt, extras, max_tokens=_FEW, stop_token_ids=[stop], ignore_eos=True)
        return held is not None and held.finish == "stop" and held.token_ids == (stop,)

    def _samplers(self, prompt: list[int] | str, greedy: Mapping[str, Any]) -> frozenset[str]:
        """Fields beyond the protocol that it heeds: each alone makes the hottest sampling greedy."""
        hot = {"prompt": prompt, "temperature": 2.0, "seed": 1}
        plain = read_written(only_choice(greedy), self._tokens).text
        control = self._try(COMPLETIONS, **hot)
        if control is None or only_choice(control).get("text") == plain:
            return frozenset()
        found = set()
        for name, value in (("top_k", 1), ("min_p", 1.0)):
            said = self._try(COMPLETIONS, **hot, **{name: value})
            if said is not None and only_choice(said).get("text") == plain:
                found.add(name)
        return frozenset(found)

    def _written(self, prompt: list[int] | str, extras: Mapping[str, Any], **more: Any) -> Written | None:
        said = self._try(COMPLETIONS, prompt=prompt, **extras, **more)
        return None if said is None else read_written(only_choice(said), self._tokens)

    def _try(self, path: str, **body: Any) -> dict[str, Any] | None:
        """What it says, or None where it does not do it in this way."""
        try:
            said = self._server.post(path, self._body(**body))
            only_choice(said)
        except LieError:
            return None
        except Refused as error:
            if error.status in _NOT_KNOWN:
                return None
            raise
        return said

    def _body(self, **body: Any) -> dict[str, Any]:
        return {"model": self._model, "max_tokens": _FEW, "temperature": 0.0} | body


def only_choice(said: Mapping[str, Any]) -> dict[str, Any]:
    """The one choice of an answer.

    Raises:
        LieError: there is not exactly one.
    """
    choices = said.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise LieError("an answer without exactly one choice")
    return choices[0]


def _read(said: Mapping[str, Any]) -> int | None:
    """How many tokens of the prompt a server counted, where it says so."""
    usage = said.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else None


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _least_best(written: Written) -> int:
    """How many of the most likely tokens are told at every position."""
    if not written.positions:
        return 0
    return min(0 if each.best is None or each.token is None else len(each.best) for each in written.positions)
