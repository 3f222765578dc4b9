"""A server that speaks the protocol of OpenAI: noise behind it, with the habits that servers of the field have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from open_app import listening

from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from teacher_server import FakeTeacher
from teacher_server.remote.tokens import RemoteTokens

FIRST_BYTE = 5
VOCAB = FIRST_BYTE + 256
EOS = 2
NAMES = {0: "<pad>", 1: "<bos>", EOS: "<eos>", 3: "<user>", 4: "<assistant>"}
MAX_MODEL_LEN = 96
KEY = "sk-very-secret"
LIKE_VLLM = frozenset(
    {
        "return_token_ids",
        "return_tokens_as_token_ids",
        "prompt_logprobs",
        "stop_token_ids",
        "ignore_eos",
        "top_k",
        "min_p",
    }
)

Answer = dict[str, Any]


def encode(text: str) -> list[int]:
    return BYTES.encode(text)


def tokens() -> RemoteTokens:
    """One id a byte, behind five that stand for no text."""
    return RemoteTokens(BYTES.pieces, NAMES, encode=encode)


@dataclass(frozen=True)
class Alphabet:
    """The tokens of a server: one a byte, and some that stand for no text."""

    pieces: tuple[bytes | None, ...]
    names: Mapping[int, str]
    eos: int

    def encode(self, text: str) -> list[int]:
        return [self.pieces.index(bytes([byte])) for byte in text.encode()]

    def with_names(self, text: str) -> list[int]:
        """Special tokens that a text spells are read as such, as servers do."""
        for number, name in self.names.items():
            if name in text:
                before, after = text.split(name, 1)
                return [*self.with_names(before), number, *self.with_names(after)]
        return self.encode(text)

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[each] or b"" for each in ids).decode("utf-8", "replace")

    def name(self, token: int, *, by_id: bool = False) -> str:
        if by_id:
            return f"token_id:{token}"
        return self.names[token] if token in self.names else self.text([token])


BYTES = Alphabet((*[None] * FIRST_BYTE, *(bytes([byte]) for byte in range(256))), NAMES, EOS)


@dataclass
class Habits:
    """What a server knows, and how it lies. `fields` are those beyond the protocol that it heeds.

    Others it refuses where it is `strict` and ignores where it is not. `spoil` changes an answer before it goes out.
    `ascii`: it writes nothing but letters, as a model that answers in words. `unread` is what it says to a body that it
    cannot read.
    """

    name: str = "noise"
    fields: frozenset[str] = LIKE_VLLM
    strict: bool = True
    takes_ids: bool = True
    echoes: bool = True
    most_logprobs: int = VOCAB
    chat_only: bool = False
    ascii: bool = False
    unread: int = 400
    seed: int = 0
    alphabet: Alphabet = BYTES
    spoil: Callable[[str, Answer], Answer] = lambda _, answer: answer
    before: Callable[[int], JSONResponse | None] = lambda _: None
    asked: list[dict[str, Any]] = field(default_factory=list)


PLAIN = {
    "model", "prompt", "messages", "max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty",
    "logprobs", "top_logprobs", "echo",
}  # fmt: skip


class Noise(FakeTeacher):
    """Noise that, where it is told to, is letters alone."""

    def __init__(self, habits: Habits) -> None:
        identity = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)
        alphabet = habits.alphabet
        vocab = len(alphabet.pieces)
        super().__init__(identity, vocab=vocab, seed=habits.seed, eos_id=alphabet.eos, max_model_len=MAX_MODEL_LEN)
        self._letters = [alphabet.eos, *alphabet.encode("abcdefghijklmnopqrstuvwxyz")] if habits.ascii else []

    def _draw_row(self, context: tuple[int, ...]) -> np.ndarray:
        row = super()._draw_row(context).astype(np.float64)
        if self._letters:
            other = np.ones(len(row), dtype=bool)
            other[self._letters] = False
            row[other] -= 30.0
            row[self._letters[0]] -= 4.0
            row -= np.log(np.exp(row).sum())
        return row.astype(np.float32)


def make_server(habits: Habits) -> FastAPI:
    """The app; whoever asks needs `KEY`."""
    app, source = FastAPI(), Noise(habits)

    async def answer(request: Request, route: str) -> Response:
        body = await request.json()
        habits.asked.append(body)
        said = habits.before(len(habits.asked))
        if said is not None:
            return said
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _no(401, f"Incorrect API key provided: {request.headers.get('authorization')}")
        if body["model"] != habits.name:
            return _no(404, f"The model {body['model']} does not exist")
        unknown = set(body) - PLAIN - (habits.fields if route == "completions" else frozenset())
        if unknown and habits.strict:
            return _no(400, f"Unrecognized request argument supplied: {sorted(unknown)[0]}")
        if not habits.echoes and body.get("echo"):
            return _no(400, "echo is not supported")
        body = {name: value for name, value in body.items() if name not in unknown}
        if max(body.get("logprobs") or 0, body.get("top_logprobs") or 0) > habits.most_logprobs:
            return _no(400, f"at most {habits.most_logprobs} log-probabilities")
        # As other servers do: a NaN goes out as it is.
        said = json.dumps(habits.spoil(route, _said(source, body, habits)))
        return Response(said, media_type="application/json")

    if not habits.chat_only:

        @app.post("/v1/completions")
        async def completions(request: Request) -> Response:
            if not habits.takes_ids and isinstance((await request.json())["prompt"], list):
                return _no(habits.unread, "prompt must be a string")
            return await answer(request, "completions")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, "chat/completions")

    return app


@contextmanager
def serving(habits: Habits) -> Iterator[str]:
    """The base address of a server with these habits, behind a real socket."""
    with listening(make_server(habits)) as url:
        yield f"{url}/v1"


def _said(source: FakeTeacher, body: dict[str, Any], habits: Habits) -> Answer:
    conversation = "messages" in body
    alphabet = habits.alphabet
    prompt = _prompt(body, alphabet)
    own_stop = () if body.get("ignore_eos") else (alphabet.eos,)
    stops = tuple(sorted({*body.get("stop_token_ids", ()), *own_stop}))
    request = GenerateRequest(
        tuple(prompt),
        stops,
        body.get("max_tokens", 16),
        temperature=body.get("temperature", 1.0),
        top_p=body.get("top_p", 1.0),
        top_k=body.get("top_k", 0),
        min_p=body.get("min_p", 0.0),
        sampling_seed=body.get("seed", 0),
    )
    if conversation:
        request = replace(request, prompt_ids=(1, 3, *prompt, 4))
    logprobs = body.get("top_logprobs", 0) if body.get("logprobs") is True else body.get("logprobs") or 0
    [(_, record)] = source.generate([request], k=max(logprobs, 1))
    if isinstance(record, Failure):
        # As vLLM says it; a context that is too long is a bad request.
        raise AssertionError(record.reason)
    ids = record.response_ids.tolist()
    ended = record.finish == "stop" and not body.get("return_token_ids")
    shown = ids[:-1] if ended else ids
    by_id = bool(body.get("return_tokens_as_token_ids"))
    choice: Answer = {"index": 0, "finish_reason": record.finish}
    if conversation:
        choice["message"] = {"role": "assistant", "content": alphabet.text(shown)}
        if logprobs:
            choice["logprobs"] = {"content": _content(record, shown, logprobs, alphabet)}
    else:
        name = partial(alphabet.name, by_id=by_id)
        choice["text"] = alphabet.text(shown)
        tables = _tables(record, shown, logprobs, name=name) if logprobs else None
        if body.get("echo"):
            choice["text"] = alphabet.text(prompt) + choice["text"]
            tables = _joined(_echoed(source, prompt, logprobs, name=name), tables)
        choice["logprobs"] = tables
        if body.get("return_token_ids"):
            choice["token_ids"] = ids
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = _prompt_logprobs(source, prompt, body["prompt_logprobs"], alphabet)
    usage = {"prompt_tokens": len(request.prompt_ids), "completion_tokens": len(ids)}
    return {"object": "text_completion", "model": habits.name, "choices": [choice], "usage": usage}


def _prompt(body: dict[str, Any], alphabet: Alphabet) -> list[int]:
    if "messages" in body:
        return alphabet.encode(body["messages"][-1]["content"])
    return body["prompt"] if isinstance(body["prompt"], list) else alphabet.with_names(body["prompt"])


def _finite(value: float) -> float:
    return max(float(value), -9999.0)


def _tables(record: TeacherRecord, ids: Sequence[int], k: int, *, name: Callable[[int], str]) -> Answer:
    assert record.topk_ids is not None and record.topk_logprobs is not None and record.target_logprobs is not None
    rows = zip(record.topk_ids.tolist(), record.topk_logprobs.tolist(), strict=True)
    tops = [{name(n): _finite(x) for n, x in zip(*row, strict=True)} for row in rows]
    given = [_finite(x) for x in record.target_logprobs.tolist()]
    return {
        "tokens": [name(each) for each in ids],
        "token_logprobs": given[: len(ids)],
        # The token itself is always in its table.
        "top_logprobs": [{name(token): value} | table for token, value, table in zip(ids, given, tops, strict=False)],
    }


def _echoed(source: FakeTeacher, prompt: Sequence[int], k: int, *, name: Callable[[int], str]) -> Answer:
    first: Answer = {"tokens": [name(prompt[0])], "token_logprobs": [None], "top_logprobs": [None]}
    if len(prompt) == 1:
        return first
    [(_, record)] = source.score([ScoreRequest(tuple(prompt), 1)], k=max(k, 1))
    assert isinstance(record, TeacherRecord)
    return _joined(first, _tables(record, prompt[1:], k, name=name))


def _joined(one: Answer, other: Answer | None) -> Answer:
    return one if other is None else {field: one[field] + other[field] for field in one}


def _content(record: TeacherRecord, ids: Sequence[int], k: int, alphabet: Alphabet) -> list[Answer]:
    assert record.topk_ids is not None and record.topk_logprobs is not None and record.target_logprobs is not None

    def said(token: int, value: float) -> Answer:
        piece = alphabet.pieces[token]
        raw = None if piece is None else list(piece)
        return {"token": alphabet.name(token), "logprob": _finite(value), "bytes": raw}

    return [
        said(token, value) | {"top_logprobs": [said(n, x) for n, x in zip(best, given, strict=True)][:k]}
        for token, value, best, given in zip(
            ids, record.target_logprobs.tolist(), record.topk_ids.tolist(), record.topk_logprobs.tolist(), strict=False
        )
    ]


def _prompt_logprobs(source: FakeTeacher, prompt: Sequence[int], k: int, alphabet: Alphabet) -> list[Answer | None]:
    if len(prompt) == 1:
        return [None]
    [(_, record)] = source.score([ScoreRequest(tuple(prompt), 1)], k=max(k, 1))
    assert isinstance(record, TeacherRecord) and record.topk_ids is not None and record.topk_logprobs is not None
    assert record.target_logprobs is not None and record.target_ranks is not None
    tables: list[Answer | None] = [None]
    for at, token in enumerate(prompt[1:]):
        table = {
            str(n): {"logprob": _finite(x), "rank": rank, "decoded_token": alphabet.name(n)}
            for rank, (n, x) in enumerate(
                zip(record.topk_ids[at].tolist(), record.topk_logprobs[at].tolist(), strict=True), start=1
            )
        }
        own = {"logprob": _finite(record.target_logprobs[at]), "rank": int(record.target_ranks[at])}
        tables.append({str(token): own} | table)
    return tables


def _no(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=status)
