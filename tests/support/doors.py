"""A door in this process: a teacher that is noise, a tokenizer of single characters, and clients with tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from cache import TeacherCache
from cache.answers import Request
from cache.identity import TeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord
from teacher_server import FakeTeacher
from teacher_server.http.app import build_app
from teacher_server.http.guard import Guard, Scope, TokenStore
from teacher_server.http.quotas import Quotas
from teacher_server.http.rules import Rules
from teacher_server.http.sequence_desk import Asking, DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served, TeacherFacts
from teacher_server.http.signals.served import ServedSignals
from teacher_server.http.stepping import SteppedEngine
from teacher_server.http.texts import Texts
from teacher_server.requests import Asked

VOCAB = 151
EOS = 2
IDENTITY = TeacherIdentity(weights_sha256="d" * 64, config_sha256="e" * 64)
TEACHER = FakeTeacher(IDENTITY, vocab=VOCAB, eos_id=EOS, max_model_len=64)
FACTS = TeacherFacts(IDENTITY, max_model_len=64, stop_ids=(EOS,), label="Noise")

SPECIAL = {"<bos>": 1, "<eos>": EOS, "<user>": 3, "<assistant>": 4, "<system>": 5, "<unnamed>": 6}
FIRST_CHARACTER = 20


class ToyTokenizer:
    """One id a character of ASCII. Its template writes `<role>words<eos>` and a line feed."""

    chat_template: str | None = "there"
    all_special_tokens = ("<bos>", "<eos>")

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        return {id_: SimpleNamespace(content=text, special=True) for text, id_ in SPECIAL.items()}

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        parts = re.findall("|".join(map(re.escape, SPECIAL)) + "|.", text, re.DOTALL)
        ids = [SPECIAL.get(part) or FIRST_CHARACTER + ord(part) % 128 for part in parts]
        return [SPECIAL["<bos>"], *ids] if add_special_tokens else ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(token - FIRST_CHARACTER) for token in token_ids if token >= FIRST_CHARACTER)

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: Any
    ) -> str:
        assert not tokenize
        if self.chat_template is None or any(turn["role"] == "tool" for turn in conversation):
            raise ValueError("there is no template\nfor this")
        written = "".join(f"<{turn['role']}>{turn['content']}<eos>\n" for turn in conversation)
        return variables.get("before", "") + written + ("<assistant>" if add_generation_prompt else "")


class Gated:
    """Answers as the teacher does, once it is let, and remembers what it was asked."""

    def __init__(self, *, open_gate: bool = False) -> None:
        self.asked: list[Request] = []
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def answer(self, request: Request, *, k: int) -> TeacherRecord | Failure:
        self.asked.append(request)
        await self.gate.wait()
        source = TEACHER.generate if isinstance(request, GenerateRequest) else TEACHER.score
        [(_, outcome)] = source([request], k=k)  # type: ignore[operator]
        return outcome

    async def until_asked(self, count: int = 1) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class OpenDoor:
    """A door with its parts, and a client that knows its name."""

    app: FastAPI
    desk: SequenceDesk
    tokens: TokenStore
    client: httpx.AsyncClient
    made: dict[str, str] = field(default_factory=dict)

    def headers(self, scope: Scope = "ask", **more: str) -> dict[str, str]:
        """Those of a client with a token of this scope."""
        if scope not in self.made:
            self.made[scope] = self.tokens.new(f"the-{scope}", scopes=[scope])
        return {"Authorization": f"Bearer {self.made[scope]}", **more}

    async def ask(self, path: str, body: Any, *, scope: Scope = "ask", **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers(scope, **headers))

    async def told(self, path: str, *, scope: Scope = "read") -> httpx.Response:
        return await self.client.get(path, headers=self.headers(scope))


def make_door(
    root: Path,
    asking: Asking,
    *,
    texts: bool = True,
    quotas: Quotas | None = None,
    limits: DoorLimits | None = None,
    why_not_ready: Callable[[], str | None] = lambda: None,
    names: Sequence[str] = ("noise",),
    signals: Mapping[str, ServedSignals] | None = None,
    rules: Rules | None = None,
    **terms: Any,
) -> OpenDoor:
    """A door over the cache in `root`; all names lead to one teacher, beside those that give `signals`."""
    desk = SequenceDesk(
        TeacherCache.open(root / "cache", IDENTITY), asking, DeskTerms(**{"vocab": VOCAB, "most_k": 8} | terms)
    )
    tokens = TokenStore(root / "tokens.json")
    served = Served(desk, FACTS, Texts(ToyTokenizer(), stop_ids=(EOS,)) if texts else None, rules)
    app = build_app(
        dict.fromkeys(names, served),
        signals=signals or {},
        guard=Guard(tokens, hosts=["door", "127.0.0.1", "testserver"]),
        quotas=quotas or Quotas(),
        limits=limits or DoorLimits(),
        why_not_ready=why_not_ready,
    )
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door")
    return OpenDoor(app, desk, tokens, client)


def at_door(
    root: Path, play: Callable[[OpenDoor], Coroutine[Any, Any, None]], *, asking: Asking | None = None, **settings: Any
) -> OpenDoor:
    """Run `play` at a door whose teacher is a stepped engine, unless somebody else is; it is drained then."""
    engine = SteppedEngine(TEACHER) if asking is None else None
    try:
        door = make_door(root, asking or engine, **settings)  # type: ignore[arg-type]

        async def run() -> None:
            # A test that waits for what does not come fails.
            async with door.client, asyncio.timeout(30):
                await play(door)
            await door.app.state.door.drain()

        asyncio.run(run())
    finally:
        if engine is not None:
            engine.close()
    return door


def asked(requests: Sequence[Request], *, k: int) -> list[Asked]:
    """Questions to a desk."""
    return [Asked(request, k) for request in requests]


def written(*prompt_ids: int, new: int = 4, **sampling: Any) -> dict[str, Any]:
    """A row of `POST /v1/generate`."""
    return {"prompt_ids": list(prompt_ids), "max_new_tokens": new, **sampling}


def scored(*token_ids: int, prompt_len: int = 1) -> dict[str, Any]:
    """A row of `POST /v1/score`."""
    return {"token_ids": list(token_ids), "prompt_len": prompt_len}


def why(response: httpx.Response) -> dict[str, Any]:
    """What an answer that is none says, checked for its shape."""
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"status", "code", "reason", "request_id"}
    assert body["error"]["status"] == response.status_code
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return dict(body["error"])
