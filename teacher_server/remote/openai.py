"""A teacher behind a server that speaks the protocol of OpenAI, as a `SequenceSource`: vLLM, SGLang, hosted ones.

What it can do is found out when it is opened (`probing`), and told. Sequences it always gives. Log-probabilities are
kept where every one leads to an id of the tokenizer that is here; the tail is exact, because what is given is
normalised over the whole vocabulary. A row where one does not is the text alone: nothing is guessed.

Nobody can hash its weights. It is who its `RemoteTeacherIdentity` says; that the same name still answers the same is
told by its fingerprint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx

from cache.identity import RemoteTeacherIdentity
from cache.keys import engine_seed, generation_key
from cache.protocols import QUOTED, Failure, Outcome
from cache.records import Finish, GenerateRequest, ScoreRequest, TeacherRecord, validate_record
from configs.errors import EngineError, RecordError
from teacher_server.answers import make_record
from teacher_server.batching import Batches
from teacher_server.insisting import Refused
from teacher_server.logprob_rows import TopkRows
from teacher_server.remote.calls import Server, ServerSettings
from teacher_server.remote.choices import LieError, Written, read_written, topk_of
from teacher_server.remote.probing import CHAT, COMPLETIONS, Abilities, Fingerprint, Prober, only_choice
from teacher_server.remote.spending import Bill, Prices, Purse
from teacher_server.remote.tokens import RemoteTokens
from teacher_server.requests import Asked, most_tokens, refusal

ROW_ERRORS = frozenset({400, 413, 422})
"""Statuses that speak of one request, and not of all."""

NO_SCORES = "this server gives no log-probabilities of given texts: it can write, and not score"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """Which model of a server is the teacher.

    `revision` is what is declared of it: hosted models change under their names. `end_id` is the token that ends an
    answer whose text alone is told, `bos_id` the one that the tokenizer puts before every text. `max_model_len` are
    tokens of the longest sequence.
    """

    name: str
    revision: str
    provider: str
    end_id: int
    max_model_len: int
    epoch: int = 1
    bos_id: int | None = None

    @property
    def identity(self) -> RemoteTeacherIdentity:
        """Who it is, as far as anybody can tell."""
        return RemoteTeacherIdentity(self.provider, self.name, self.revision, self.epoch)


class OpenAiTeacher:
    """A teacher somewhere else. Close it, or use it as a context.

    Args:
        settings: Where it is, and how it may be asked.
        model: Which one of the server.
        tokens: The tokenizer that its answers are read with.
        k: Log-probabilities a position that are wanted; how many it gives `abilities` says.
        purse: What is paid from; without one nothing costs anything.

    Raises:
        EngineError: it cannot be reached, lets nobody in with this key, has no such model, or speaks another protocol.
    """

    def __init__(
        self,
        settings: ServerSettings,
        model: RemoteModel,
        tokens: RemoteTokens,
        *,
        k: int,
        purse: Purse | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings, self._model, self._tokens = settings, model, tokens
        self.identity = model.identity
        self._digest = self.identity.digest()
        self.purse = purse or Purse(Prices())
        self._server = Server(settings, transport=transport)
        self._prober = Prober(self._server, model=model.name, tokens=tokens)
        try:
            self.abilities: Abilities = self._prober.abilities(k=k)
            self.fingerprint: Fingerprint = self._prober.fingerprint(self.abilities)
        except BaseException:
            self._server.close()
            raise

    def __enter__(self) -> OpenAiTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        """See `SequenceSource.generate`; a row whose ids cannot be told is the text alone, whatever `k` is.

        Raises:
            EngineError: `k` is more than the server gives, it cannot be reached, or an answer contradicts itself.
            BudgetReached: what may be spent is spent.
        """
        self._require_k(k, least=0)
        return self._each(requests, k=k)

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        """See `SequenceSource.score`; it raises the same errors as `generate`."""
        if self.abilities.scoring == "none":
            raise EngineError(f"{self._settings.base_url}: {NO_SCORES}")
        self._require_k(k, least=1)
        return self._each(requests, k=k)

    def work(self, asked: Iterable[Asked | None]) -> Generator[list[Outcome], None, None]:
        """Requests of both kinds side by side. See `VllmEngine.work`; it raises the same errors as `generate`."""
        settings, let_go = self._settings, self._server.let_go
        return Batches(self._ask_each, self._refusal, rows=1, at_once=settings.at_once, let_go=let_go).work(asked)

    def _each(self, requests: Iterable[GenerateRequest | ScoreRequest], *, k: int) -> Iterator[Outcome]:
        with closing(self.work(Asked(request, k) for request in requests)) as steps:
            for finished in steps:
                yield from finished

    def _require_k(self, k: int, *, least: int) -> None:
        if not least <= k <= self.abilities.most_k:
            raise EngineError(
                f"k={k} is outside {least}..{self.abilities.most_k}, what {self._settings.base_url} gives of its own "
                "answers"
            )

    def _refusal(self, asked: Asked) -> str | None:
        """Why this teacher cannot answer a request: a field that it would ignore is one that it cannot answer."""
        request = asked.request
        reason = refusal(request, vocab=self._tokens.vocab, max_model_len=self._model.max_model_len)
        if reason is not None:
            return reason
        if isinstance(request, ScoreRequest):
            return NO_SCORES if self.abilities.scoring == "none" else None
        return self._unheeded(request) or self._unreadable(request)

    def _unheeded(self, request: GenerateRequest) -> str | None:
        if request.grammar:
            return "the protocol has no grammars of ours"
        if request.repetition_penalty != 1.0:
            return f"the protocol has no repetition_penalty={request.repetition_penalty:g}"
        if request.temperature > 0:
            for name, neutral in (("top_k", 0), ("min_p", 0.0)):
                value = getattr(request, name)
                if value != neutral and name not in self.abilities.samplers:
                    return f"this server does not heed {name}={value:g}"
        if not self.abilities.takes_stops and not request.stop_ids:
            return "this server ends its answers itself: the request has to name the stop ids that it ends at"
        return None

    def _unreadable(self, request: GenerateRequest) -> str | None:
        if self.abilities.takes_ids:
            return None
        if self.abilities.chat and self._tokens.holds_special(self._words(request)):
            return (
                "this server takes conversations, and writes the special tokens around them itself: give prompts that "
                "are rendered without the chat template"
            )
        return None if self._tokens.text(request.prompt_ids) is not None else "the prompt ends within a character"

    def _words(self, request: GenerateRequest) -> tuple[int, ...]:
        """What is said in a conversation, before which the server writes what has to stand there."""
        prompt = request.prompt_ids
        return prompt[1:] if self._model.bos_id is not None and prompt[0] == self._model.bos_id else prompt

    def _ask_each(self, batch: Sequence[Asked]) -> list[TeacherRecord | Failure]:
        return [self._ask(each) for each in batch]

    def _ask(self, asked: Asked) -> TeacherRecord | Failure:
        request = asked.request
        read = len(request.prompt_ids) if isinstance(request, GenerateRequest) else len(request.token_ids)
        try:
            with self.purse.spending(read=read, written=most_tokens(request) - read + 1) as bill:
                if isinstance(request, ScoreRequest):
                    return self._score(request, k=asked.k)
                return self._write(request, k=asked.k, bill=bill)
        except Refused as error:
            if error.status in ROW_ERRORS:
                return Failure(f"the server refused the request{QUOTED}{error}")
            raise
        except RecordError as error:
            raise LieError(f"{self._settings.base_url}: {error}") from error

    def _score(self, request: ScoreRequest, *, k: int) -> TeacherRecord | Failure:
        positions = self._prober.scored(request.token_ids, k=k, by=self.abilities.scoring)
        rows = topk_of(positions[request.prompt_len - 1 :], request.token_ids[request.prompt_len :], k=k)
        if rows is None:
            return Failure(f"fewer than k={k} of the most likely tokens have a name that leads to one id")
        return self._record(rows, request.token_ids, request.prompt_len, finish="given")

    def _write(self, request: GenerateRequest, *, k: int, bill: Bill) -> TeacherRecord | Failure:
        said = self._server.post(CHAT if self.abilities.chat else COMPLETIONS, self._body(request, k=k))
        self._settle(bill, said, request)
        model = said.get("model", self.abilities.model)
        if model != self.abilities.model:
            raise LieError(f"{model!r} answers in place of {self.abilities.model!r}")
        written = read_written(only_choice(said), self._tokens)
        if written.finish not in ("stop", "length"):
            return Failure(f"the server ended the answer with {written.finish}")
        if written.token_ids is not None and self._is_whole(written, request):
            return self._told(request, written, k=k)
        if self.abilities.gives_ids and written.token_ids and written.finish == "stop":
            return Failure(
                f"the server ended the answer at token {written.token_ids[-1]}, which is no stop of the request"
            )
        return self._by_text(request, written)

    def _body(self, request: GenerateRequest, *, k: int) -> dict[str, Any]:
        """What is sent: fields that mean nothing are left out, because some servers refuse what they do not know."""
        abilities = self.abilities
        body: dict[str, Any] = {
            "model": self._model.name,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
        }
        if abilities.chat:
            body["messages"] = [{"role": "user", "content": self._tokens.text(self._words(request))}]
        else:
            body["prompt"] = list(request.prompt_ids) if abilities.takes_ids else self._tokens.text(request.prompt_ids)
        if k:
            body |= {"logprobs": True, "top_logprobs": k} if abilities.chat else {"logprobs": k}
        body |= dict.fromkeys(abilities.id_fields, True)
        if abilities.takes_stops:
            body |= {"stop_token_ids": list(request.stop_ids), "ignore_eos": True}
        penalties = ("presence_penalty", "frequency_penalty")
        body |= {name: getattr(request, name) for name in penalties if getattr(request, name)}
        if request.temperature > 0:
            body["seed"] = engine_seed(generation_key(self._digest, request))
            neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
            body |= {name: getattr(request, name) for name, value in neutral.items() if getattr(request, name) != value}
        return body

    def _settle(self, bill: Bill, said: Mapping[str, Any], request: GenerateRequest) -> None:
        """What it really cost, where the server says how much it read and wrote."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            usage = said["usage"]
            read, written = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            bill.cost = self.purse.prices.cost(read=read, written=written)
            if not self.abilities.chat and read != len(request.prompt_ids):
                raise LieError(
                    f"{self._settings.base_url} reads {read} tokens where the tokenizer that is here has "
                    f"{len(request.prompt_ids)}: it is another one, or special tokens are added"
                )

    def _is_whole(self, written: Written, request: GenerateRequest) -> bool:
        """Whether the ids are all of the answer: where it ended by itself, its last one has to say so."""
        ids = written.token_ids or ()
        if written.finish == "length":
            return len(ids) == request.max_new_tokens
        return bool(ids) and ids[-1] in request.stop_ids

    def _told(self, request: GenerateRequest, written: Written, *, k: int) -> TeacherRecord | Failure:
        """An answer whose ids are told, with its log-probabilities where they lead to ids too."""
        ids = written.token_ids or ()
        early = next((at for at, token in enumerate(ids[:-1]) if token in request.stop_ids), None)
        if early is not None:
            return Failure(f"the server wrote on behind the stop id {ids[early]}")
        rows = topk_of(written.positions, ids, k=k) if k and written.positions is not None else None
        if k and written.positions is None:
            raise LieError(f"{self._settings.base_url} gave no log-probabilities, which were asked for")
        finish: Finish = "stop" if written.finish == "stop" or ids[-1] in request.stop_ids else "length"
        return self._record(rows, (*request.prompt_ids, *ids), len(request.prompt_ids), finish=finish)

    def _by_text(self, request: GenerateRequest, written: Written) -> TeacherRecord | Failure:
        """The text alone, in the ids of the tokenizer that is here."""
        ids = self._tokens.ids(written.text)
        if ids is None:
            return Failure("the answer cannot be written in tokens of the tokenizer that is here")
        if written.finish == "stop" and not request.stop_ids:
            return Failure("the server ended the answer itself, and the request has no stop ids")
        if written.finish == "stop":
            end = self._model.end_id if self._model.end_id in request.stop_ids else request.stop_ids[0]
            ids = [*ids, end]
        finish: Finish = "stop" if written.finish == "stop" else "length"
        if len(ids) > request.max_new_tokens:
            ids, finish = ids[: request.max_new_tokens], "length"
        if finish == "length" and len(ids) < request.max_new_tokens:
            return Failure(
                f"the server stopped after max_new_tokens={request.max_new_tokens} tokens of its own, which are "
                f"{len(ids)} of the tokenizer that is here: nobody knows how the answer goes on"
            )
        return self._record(None, (*request.prompt_ids, *ids), len(request.prompt_ids), finish=finish)

    def _record(
        self, rows: TopkRows | None, token_ids: Sequence[int], prompt_len: int, *, finish: Finish
    ) -> TeacherRecord:
        record = make_record(
            rows,
            identity_digest=self._digest,
            token_ids=token_ids,
            prompt_len=prompt_len,
            finish=finish,
            origin="prefill" if finish == "given" else "decode",
            vocab=self._tokens.vocab,
        )
        validate_record(record, vocab=self._tokens.vocab)
        return record
