"""OpenAI's protocol at the door, as its own client and lm-evaluation-harness see it, against the other routes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from doors import EOS, FIRST_CHARACTER, IDENTITY, SPECIAL, TEACHER, VOCAB, Gated, OpenDoor, at_door, make_door, written
from open_app import listening

from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from teacher_server.http.exchange import ACCESS_LOG
from teacher_server.http.openai.answer_bodies import ChatAnswer, CompletionAnswer, ModelsBody
from teacher_server.http.quotas import Quotas
from teacher_server.http.served import DoorLimits
from teacher_server.http.stepping import SteppedEngine

A = FIRST_CHARACTER + ord("a")
HELLO: Any = [{"role": "user", "content": "Hello"}]


@dataclass
class Opened:
    """A door behind a socket, clients of it, and another way to ask it."""

    door: OpenDoor
    url: str
    made: dict[str, str] = field(default_factory=dict)

    def client(self, scope: Any = "ask") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.token(scope), max_retries=0)

    def token(self, scope: Any) -> str:
        if scope not in self.made:
            self.made[scope] = self.door.tokens.new(f"the-{scope}", scopes=[scope])
        return self.made[scope]

    def post(self, path: str, body: Any) -> Any:
        """The answer of one of the door's routes."""
        headers = {"Authorization": f"Bearer {self.token('ask')}"}
        response = httpx.post(self.url + path, json=body, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()

    def row(self, path: str, row: Any, *, k: int) -> Any:
        """The one row of the door's own routes."""
        return self.post(path, {"k": k, "requests": [row]})["rows"][0]

    def wait_until_written(self) -> None:
        """Until the cache has what was answered."""
        for _ in range(500):
            if self.door.desk.counts.committed_rows >= self.door.desk.counts.asked:
                return
            time.sleep(0.02)
        raise AssertionError("nothing was written")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    engine = SteppedEngine(TEACHER)
    door = make_door(tmp_path, engine, commit_every_s=0.05)
    with listening(door.app) as url:
        yield Opened(door, url)
    engine.close()


def believed(tokens: Sequence[int]) -> np.ndarray:
    """What the teacher believes behind these tokens [V], asked of itself."""
    [(_, record)] = TEACHER.score([ScoreRequest((*tokens, 0), len(tokens))], k=VOCAB)
    assert isinstance(record, TeacherRecord) and record.topk_ids is not None and record.topk_logprobs is not None
    row = np.empty(VOCAB)
    row[record.topk_ids[0]] = record.topk_logprobs[0]
    return row


def test_the_teachers_are_its_models(opened: Opened) -> None:
    client = opened.client("read")
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("noise", "model", "stillroom")
    assert client.models.retrieve("noise") == model
    for name in ("gpt", "org/gpt"):
        with pytest.raises(openai.NotFoundError) as nobody:
            client.models.retrieve(name)
        assert nobody.value.type == "invalid_request_error"


def test_a_completion_is_what_generate_writes_and_the_teacher_believes(opened: Opened) -> None:
    answer = opened.client().completions.create(
        model="noise", prompt=[1, A, A], max_tokens=7, temperature=0, logprobs=3, extra_body={"return_token_ids": True}
    )
    row = opened.row("/v1/generate", written(1, A, A, new=7), k=3)
    [choice] = answer.choices
    assert row["cached"] and choice.token_ids == row["token_ids"][3:] and choice.text == row["text"]  # type: ignore[attr-defined]
    assert choice.prompt_token_ids == [1, A, A]  # type: ignore[attr-defined]
    assert choice.finish_reason == {"stop": "stop", "length": "length"}[row["finish"]]
    told = choice.logprobs
    assert told is not None and told.token_logprobs is not None and told.top_logprobs is not None and told.tokens
    assert told.token_logprobs == row["target_logprobs"]
    tokens = [1, A, A]
    for logprob, top, token in zip(told.token_logprobs, told.top_logprobs, choice.token_ids, strict=True):  # type: ignore[attr-defined]
        distribution = believed(tokens)
        assert logprob == pytest.approx(distribution[token], abs=1e-6)
        assert token == distribution.argmax() and logprob == max(top.values())
        assert sorted(top.values()) == pytest.approx(sorted(distribution)[-3:], abs=1e-6)
        tokens.append(token)
    assert answer.usage is not None and answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens == len(choice.token_ids)  # type: ignore[attr-defined]
    assert answer.system_fingerprint == f"fp_{IDENTITY.digest()[:16]}" and answer.object == "text_completion"


def test_texts_and_ids_alone_and_in_lists_are_the_same_prompts(opened: Opened) -> None:
    client, ids = opened.client(), [SPECIAL["<bos>"], A]
    asked = {"model": "noise", "max_tokens": 4, "temperature": 0}
    texts = [
        [choice.text for choice in client.completions.create(prompt=prompt, **asked).choices]  # type: ignore[call-overload]
        for prompt in ("a", ids, ["a", "a"], [ids, ids])
    ]
    assert texts[0] == texts[1] and texts[2] == texts[3] == texts[0] * 2
    assert opened.door.desk.counts.asked == 1


def test_a_sampled_answer_is_drawn_once_and_other_seeds_and_places_have_others(opened: Opened) -> None:
    def draws(**fields: Any) -> list[str]:
        answer = opened.client().completions.create(model="noise", prompt="a", max_tokens=12, **fields)
        return [choice.text for choice in answer.choices]

    first = draws(n=3)
    assert len(set(first)) > 1 and draws(n=3) == first and draws() == first[:1]
    assert draws(n=3, seed=1) != first
    for at, text in enumerate(first):
        row = written(SPECIAL["<bos>"], A, new=12, temperature=1.0, replicate=at)
        assert opened.row("/v1/generate", row, k=0)["text"] == text


def test_echo_is_what_score_says_of_the_prompt(opened: Opened) -> None:
    ids = [1, A, A + 1, A + 5, EOS, A]
    answer = opened.client().completions.create(model="noise", prompt=ids, max_tokens=0, echo=True, logprobs=2)
    row = opened.row("/v1/score", {"token_ids": ids, "prompt_len": 1}, k=2)
    [choice] = answer.choices
    told = choice.logprobs
    assert row["cached"] and told is not None and told.token_logprobs is not None and told.top_logprobs is not None
    assert choice.text == "abfa" and told.tokens == ["<bos>", "a", "b", "f", "<eos>", "a"]
    assert told.text_offset == [0, 0, 1, 2, 3, 3]
    assert told.token_logprobs == [None, *row["target_logprobs"]] and told.top_logprobs[0] is None
    for at in range(1, len(ids)):
        distribution = believed(ids[:at])
        assert told.token_logprobs[at] == pytest.approx(distribution[ids[at]], abs=1e-6)
        assert max(told.top_logprobs[at].values()) == pytest.approx(distribution.max(), abs=1e-6)
    assert answer.usage is not None and answer.usage.completion_tokens == 0


# What lm-evaluation-harness 0.4.13 sends and reads: `LocalCompletionsAPI._create_payload` and `parse_logprobs` in
# lm_eval/models/openai_completions.py, word for word but for its names.


def harness_payload(prompts: list[list[int]]) -> dict[str, Any]:
    return {
        "model": "noise", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True,
    }  # fmt: skip


def harness_likelihoods(out: dict[str, Any], context_lengths: list[int]) -> list[tuple[float, bool]]:
    found = []
    for choice, length in zip(sorted(out["choices"], key=itemgetter("index")), context_lengths, strict=False):
        logprobs = sum(choice["logprobs"]["token_logprobs"][length:-1])
        tokens_logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        top_logprobs = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = True
        for tok, top in zip(tokens_logprobs, top_logprobs, strict=False):
            if tok != max(top.values()):
                is_greedy = False
                break
        found.append((logprobs, is_greedy))
    return found


def greedy_behind(tokens: list[int], *, count: int) -> list[int]:
    """These tokens and the most likely ones behind them."""
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(believed(tokens).argmax()))
    return tokens


def test_the_harness_reads_likelihoods_and_whether_they_are_the_greatest(opened: Opened) -> None:
    greedy = greedy_behind([1, A], count=5)
    prompts = [greedy, [*greedy[:-1], (greedy[-1] + 1) % VOCAB], [1, A, A + 1, A + 2], [*greedy, 7]]
    contexts = [2, 2, 1, 2]
    expected = []
    for ids, length in zip(prompts, contexts, strict=True):
        rows = [believed(ids[:at]) for at in range(length, len(ids))]
        total = sum(row[token] for row, token in zip(rows, ids[length:], strict=True))
        expected.append((total, all(row.argmax() == token for row, token in zip(rows, ids[length:], strict=True))))
    assert [is_greedy for _, is_greedy in expected] == [True, False, False, False]
    # Fresh from the engine, and from the cache, which rounds what stands beside the token that came.
    for _ in range(2):
        found = harness_likelihoods(opened.post("/v1/completions", harness_payload(prompts)), contexts)
        for (total, is_greedy), (exact, really) in zip(found, expected, strict=True):
            assert total == pytest.approx(exact, abs=1e-4) and is_greedy == really
        opened.wait_until_written()
    assert opened.door.desk.counts.asked == 2 * len(prompts)


def test_the_harness_has_answers_written_up_to_its_stops(opened: Opened) -> None:
    payload = {"prompt": [[1, A]], "model": "noise", "max_tokens": 30, "temperature": 0, "seed": 1234}
    [whole] = opened.post("/v1/completions", payload)["choices"]
    stop = whole["text"][2:4]
    [choice] = opened.post("/v1/completions", payload | {"stop": [stop, "<eos>"]})["choices"]
    assert choice["text"] == whole["text"][: whole["text"].index(stop)] and choice["finish_reason"] == "stop"
    chat = {"messages": HELLO, "model": "noise", "max_tokens": 30, "temperature": 0, "stop": [], "seed": 1234}
    [choice] = opened.post("/v1/chat/completions", chat)["choices"]
    assert isinstance(choice["message"]["content"], str)


def test_a_chat_is_what_generate_writes_behind_the_same_messages(opened: Opened) -> None:
    talk: Any = [
        {"role": "developer", "content": "Be"},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
    ]
    answer = opened.client().chat.completions.create(
        model="noise", messages=talk, max_completion_tokens=9, temperature=0.7, n=2, seed=3, logprobs=True, top_logprobs=2,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    plain = [{"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"}]
    for at, choice in enumerate(answer.choices):
        row = {"messages": plain, "max_new_tokens": 9, "temperature": 0.7, "sampling_seed": 3, "replicate": at}
        found = opened.row("/v1/generate", row, k=2)
        assert found["cached"] and (choice.message.role, choice.message.content) == ("assistant", found["text"])
        assert choice.logprobs is not None and choice.logprobs.content is not None
        ids = found["token_ids"][found["prompt_len"] :]
        assert choice.token_ids == ids  # type: ignore[attr-defined]
        # The first answer may be the engine's own, before it is written; read again it is what the cache keeps.
        said = [[top.logprob for top in entry.top_logprobs] for entry in choice.logprobs.content]
        assert [entry.logprob for entry in choice.logprobs.content] == pytest.approx(found["target_logprobs"], abs=0.04)
        assert np.array(said) == pytest.approx(np.array(found["topk_logprobs"]), abs=0.04)
        spelt = b"".join(bytes(entry.bytes or []) for entry in choice.logprobs.content)
        assert spelt.decode() == choice.message.content
        assert answer.prompt_token_ids == found["token_ids"][: found["prompt_len"]]  # type: ignore[attr-defined]
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_prompts_are_told_of_as_vllm_does(opened: Opened) -> None:
    body = {"model": "noise", "prompt": [1, A, A], "max_tokens": 1, "prompt_logprobs": 2}
    [choice] = opened.post("/v1/completions", body)["choices"]
    first, *others = choice["prompt_logprobs"]
    assert first is None and choice["logprobs"] is None and len(others) == 2
    for at, told in enumerate(others, 1):
        distribution = believed([1, A, A][:at])
        assert told[str(A)]["logprob"] == pytest.approx(distribution[A], abs=1e-6)
        assert told[str(A)]["rank"] == 1 + int((distribution > distribution[A]).sum())
        assert told[str(int(distribution.argmax()))]["rank"] == 1
    body = {"model": "noise", "messages": HELLO, "max_tokens": 1, "prompt_logprobs": 1}
    assert len(opened.post("/v1/chat/completions", body)["prompt_logprobs"]) == 9


@pytest.mark.parametrize("usage", [False, True])
def test_a_streamed_completion_is_the_whole_one_in_parts(opened: Opened, usage: bool) -> None:
    client = opened.client()
    asked: dict[str, Any] = {
        "model": "noise", "prompt": ["a", "b"], "n": 2, "max_tokens": 40, "logprobs": 1, "echo": True,
        "extra_body": {"ignore_eos": True},
    }  # fmt: skip
    whole = client.completions.create(**asked)
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    texts, offsets, finishes, last = [""] * 4, [[] for _ in range(4)], [None] * 4, None  # type: ignore[var-annotated]
    chunks = 0
    for chunk in client.completions.create(stream=True, **asked, **options):
        last, chunks = chunk, chunks + 1
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
            offsets[choice.index] += (choice.logprobs and choice.logprobs.text_offset) or []
    assert texts == [choice.text for choice in whole.choices] and chunks > 4 * 2
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert offsets == [choice.logprobs and choice.logprobs.text_offset for choice in whole.choices]
    assert last is not None and last.usage == (whole.usage if usage else None)
    assert opened.door.desk.counts.asked == 2 + 4


def test_a_streamed_chat_is_the_whole_one_in_parts(opened: Opened) -> None:
    client = opened.client()
    asked: dict[str, Any] = {"model": "noise", "messages": HELLO, "logprobs": True, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**asked)
    text, logprobs, roles = "", [], []
    for chunk in client.chat.completions.create(stream=True, **asked):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        roles.append(choice.delta.role)
        logprobs += [] if choice.logprobs is None else [entry.logprob for entry in choice.logprobs.content or []]
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.content is not None
    assert text == whole.choices[0].message.content and roles[0] == "assistant" and set(roles[1:]) == {None}
    assert logprobs == [entry.logprob for entry in whole.choices[0].logprobs.content]
    assert choice.finish_reason == whole.choices[0].finish_reason


def test_clients_get_the_errors_that_they_know(opened: Opened) -> None:
    client = opened.client()
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai.OpenAI(base_url=f"{opened.url}/v1", api_key="wrong", max_retries=0).models.list()
    assert (unknown.value.code, unknown.value.type) == ("invalid_token", "authentication_error")
    with pytest.raises(openai.NotFoundError) as nobody:
        client.chat.completions.create(model="gpt", messages=HELLO)
    assert (nobody.value.code, nobody.value.param) == ("unknown_teacher", "model")
    with pytest.raises(openai.PermissionDeniedError) as reader:
        opened.client("read").completions.create(model="noise", prompt="a")
    assert (reader.value.code, reader.value.type) == ("not_cached", "permission_error")
    with pytest.raises(openai.UnprocessableEntityError) as long:
        client.completions.create(model="noise", prompt="a", max_tokens=64)
    body: Any = long.value.body
    assert (
        body["message"]
        == body["reason"]
        == ("max_tokens=64: prompt has 2 tokens, and with 64 more exceeds max_model_len=64")
    )
    assert (body["code"], body["type"], body["param"]) == (
        "context_length_exceeded",
        "invalid_request_error",
        "max_tokens",
    )
    assert body["request_id"] == long.value.request_id and body["status"] == 422
    with pytest.raises(openai.UnprocessableEntityError, match="logit_bias: this door does not do that") as biased:
        client.completions.create(model="noise", prompt="a", logit_bias={"5": 1})
    assert biased.value.param == "logit_bias"
    with pytest.raises(openai.UnprocessableEntityError, match="prompt: this teacher does not support penalties"):
        client.completions.create(model="noise", prompt="a", presence_penalty=1.0)
    with pytest.raises(openai.UnprocessableEntityError, match="prompt: this teacher does not support penalties"):
        client.completions.create(model="noise", prompt="a", presence_penalty=1.0, stream=True)


def test_who_asks_too_much_is_told_when_to_come_again(tmp_path: Path) -> None:
    engine = SteppedEngine(TEACHER)
    door = make_door(tmp_path, engine, quotas=Quotas(tokens_a_minute=20))
    with listening(door.app) as url:
        client = Opened(door, url).client()
        client.completions.create(model="noise", prompt="a")
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as over:
                client.completions.create(model="noise", prompt="b", stream=stream)
            assert over.value.code == "over_quota" and int(over.value.response.headers["retry-after"]) >= 1
    engine.close()


def test_a_failure_in_the_middle_of_a_stream_is_an_error_of_the_client(tmp_path: Path) -> None:
    gated = Gated()
    door = make_door(tmp_path, gated, limits=DoorLimits(keep_alive_s=0.02, request_s=0.3))
    with listening(door.app) as url:
        stream = Opened(door, url).client().completions.create(model="noise", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match=r"no answer within 0\.3 s") as late:
            list(stream)
        assert late.value.code == "too_slow"
        # The door closes when the teacher has answered.
        gated.gate.set()


def test_equal_questions_of_both_protocols_are_asked_once(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        asked = {"model": "noise", "prompt": [1, 5], "max_tokens": 4, "temperature": 0}
        bodies = [asked, asked | {"seed": 9, "n": 2}, asked | {"stop": "x"}, asked | {"stream": True}]
        waiting = [asyncio.create_task(door.ask("/v1/completions", body)) for body in bodies]
        waiting.append(asyncio.create_task(door.ask("/v1/generate", {"k": 0, "requests": [written(1, 5)]})))
        await gated.until_asked()
        while door.desk.counts.shared < 4:
            await asyncio.sleep(0.005)
        gated.gate.set()
        assert [(await task).status_code for task in waiting] == [200] * 5
        assert gated.asked == [GenerateRequest((1, 5), (EOS,), 4)]
        # What is there, whoever may only read gets too.
        assert (await door.ask("/v1/completions", asked, scope="read")).status_code == 200

    at_door(tmp_path, play, asking=gated)


def test_a_door_that_is_closed_sends_streams_to_their_end(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        asked = {"model": "noise", "prompt": [1, 5], "max_tokens": 4, "stream": True}
        inside = asyncio.create_task(door.ask("/v1/completions", asked))
        await gated.until_asked()
        draining = asyncio.create_task(door.app.state.door.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        late = await door.ask("/v1/completions", asked)
        assert late.status_code == 503 and late.json()["error"]["type"] == "server_error"
        gated.gate.set()
        body = (await inside).content
        assert body.startswith(b": waiting\n\n") and body.endswith(b"data: [DONE]\n\n")
        await draining

    at_door(tmp_path, play, asking=gated, limits=DoorLimits(keep_alive_s=0.02))


def test_its_answers_are_of_the_described_form(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        body = {"model": "noise", "prompt": "a", "logprobs": 1, "prompt_logprobs": 1, "return_token_ids": True}
        CompletionAnswer.model_validate_json((await door.ask("/v1/completions", body)).content)
        chat = {"model": "noise", "messages": HELLO, "logprobs": True, "prompt_logprobs": 1}
        ChatAnswer.model_validate_json((await door.ask("/v1/chat/completions", chat)).content)
        ModelsBody.model_validate_json((await door.told("/v1/models")).content)

    at_door(tmp_path, play)


def test_the_log_tells_of_rows_and_of_nothing_that_was_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play(door: OpenDoor) -> None:
        body = {"model": "noise", "prompt": "verbatim", "max_tokens": 3, "echo": True, "logprobs": 1}
        for stream in (False, True):
            assert (await door.ask("/v1/completions", body | {"stream": stream})).status_code == 200
        assert (await door.ask("/v1/completions", body | {"user": 5, "more": "verbatim"})).status_code == 422

    with caplog.at_level(logging.INFO):
        logging.getLogger("httpx").setLevel(logging.WARNING)
        at_door(tmp_path, play)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS_LOG]
    assert [(line["status"], line["route"], line["rows"], line["hits"]) for line in lines] == [
        (200, "/v1/completions", 2, 0),
        (200, "/v1/completions", 2, 2),
        (422, "/v1/completions", 0, 0),
    ]
    assert lines[0]["teacher_tokens"] > 0 and "verbatim" not in caplog.text


def test_a_teacher_without_a_tokenizer_speaks_in_ids(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        body = {"model": "noise", "prompt": [1, A], "max_tokens": 2, "logprobs": 1, "return_token_ids": True}
        [choice] = (await door.ask("/v1/completions", body)).json()["choices"]
        assert choice["text"] == "" and choice["logprobs"]["tokens"] == [
            f"token_id:{each}" for each in choice["token_ids"]
        ]
        refused = await door.ask("/v1/chat/completions", {"model": "noise", "messages": HELLO})
        assert refused.status_code == 422 and refused.json()["error"]["code"] == "invalid_text"

    at_door(tmp_path, play, texts=False)
