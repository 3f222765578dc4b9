"""A teacher behind a real vLLM server of the OpenAI protocol: what it says is what the model says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance import greedy, present, records, tokens
from tiny_llama import full_logprobs
from transformers import AutoTokenizer
from vllm_server import vllm_server

from cache.protocols import Failure
from cache.records import ScoreRequest
from configs import EngineError
from configs.schema import ModelShape
from orchestration.inputs.random_models import make_random
from teacher_server.remote.calls import ServerSettings
from teacher_server.remote.openai import OpenAiTeacher, RemoteModel
from teacher_server.remote.tokens import RemoteTokens

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]

KEY = "sk-of-the-server"
SHAPE = ModelShape(layers=2, hidden=64, heads=2, kv_heads=2, mlp=128, vocab=264, max_positions=256)
NEAR = 2e-2


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(SHAPE, seed=3, models_root=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a real one."""
    with vllm_server(model_dir, key=KEY, max_model_len=192, log=tmp_path_factory.mktemp("server") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def remote_tokens(model_dir: Path) -> RemoteTokens:
    """One token a byte; those that stand for no text are named."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    pieces: list[bytes | None] = [None] * len(tokenizer)
    for byte in range(128):
        [number] = tokenizer.encode(chr(byte), add_special_tokens=False)
        pieces[number] = bytes([byte])
    return RemoteTokens(pieces, special, encode=lambda text: tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture(scope="module")
def model(model_dir: Path) -> RemoteModel:
    end = AutoTokenizer.from_pretrained(model_dir).eos_token_id
    return RemoteModel("noise", "3", "loopback", end_id=end, max_model_len=192)


@pytest.fixture(scope="module")
def teacher(server: str, model: RemoteModel, remote_tokens: RemoteTokens) -> Iterator[OpenAiTeacher]:
    with OpenAiTeacher(ServerSettings(server, key=KEY, budget_s=600.0), model, remote_tokens, k=64) as opened:
        yield opened


def test_what_a_vllm_server_can_do(teacher: OpenAiTeacher) -> None:
    abilities = teacher.abilities
    assert (abilities.chat, abilities.takes_ids, abilities.gives_ids, abilities.takes_stops) == (
        False,
        True,
        True,
        True,
    )
    assert (abilities.most_k, abilities.scoring) == (20, "prompt_logprobs")
    assert abilities.samplers == {"top_k", "min_p"}


def test_its_rows_are_those_of_the_model(teacher: OpenAiTeacher, model_dir: Path) -> None:
    prompts = [(7, 70, 71, 72), (5, 9, 200, 31, 32), tuple(range(40, 90))]
    for record in records(teacher.generate([greedy(prompt, new=12) for prompt in prompts], k=20)):
        whole = full_logprobs(model_dir, tokens(record))[record.prompt_len - 1 :]
        own = np.take_along_axis(whole, present(record.topk_ids), axis=1)
        np.testing.assert_allclose(present(record.topk_logprobs), own, atol=NEAR)
        np.testing.assert_allclose(
            present(record.target_logprobs),
            np.take_along_axis(whole, record.response_ids[:, None], axis=1)[:, 0],
            atol=NEAR,
        )
        left = np.exp(whole).sum(axis=1) - np.exp(own).sum(axis=1)
        np.testing.assert_allclose(np.exp(present(record.tail_logmass)), left, atol=NEAR)


def test_scoring_what_it_wrote_gives_the_same_rows(teacher: OpenAiTeacher) -> None:
    hot = replace(greedy((7, 70, 71, 72), new=16), temperature=1.0, top_k=8)
    requests = [hot, replace(hot, sampling_seed=1)]
    written = records(teacher.generate(requests, k=6))
    assert [tokens(one) for one in written] == [tokens(one) for one in records(teacher.generate(requests, k=6))]
    assert tokens(written[0]) != tokens(written[1])
    again = records(teacher.score([ScoreRequest(tokens(one), one.prompt_len) for one in written], k=6))
    for one, other in zip(written, again, strict=True):
        assert one.key == other.key
        np.testing.assert_allclose(present(one.topk_logprobs), present(other.topk_logprobs), atol=NEAR)


def test_it_ends_at_the_stops_of_the_request(teacher: OpenAiTeacher) -> None:
    [free] = records(teacher.generate([greedy((7, 70, 71, 72), new=20)], k=2))
    said = free.response_ids.tolist()
    [stopped] = records(teacher.generate([greedy((7, 70, 71, 72), new=20, stop=(said[5],))], k=2))
    assert stopped.finish == "stop" and stopped.response_ids.tolist() == said[: said.index(said[5]) + 1]
    outcome = dict(teacher.generate([greedy((7,) * 190, new=20)], k=2))[0]
    assert isinstance(outcome, Failure) and "max_model_len" in outcome.reason


def test_the_same_server_has_the_same_fingerprint(
    teacher: OpenAiTeacher, server: str, model: RemoteModel, remote_tokens: RemoteTokens
) -> None:
    assert teacher.fingerprint.logprobs
    with OpenAiTeacher(ServerSettings(server, key=KEY), model, remote_tokens, k=1) as again:
        assert teacher.fingerprint.difference(again.fingerprint) is None


def test_a_wrong_key_is_let_in_nowhere(server: str, model: RemoteModel, remote_tokens: RemoteTokens) -> None:
    with pytest.raises(EngineError, match="status 401"):
        OpenAiTeacher(ServerSettings(server, key="sk-wrong"), model, remote_tokens, k=1)
