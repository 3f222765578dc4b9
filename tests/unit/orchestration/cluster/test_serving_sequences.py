"""Engines of a language model behind the door, without a cluster: what they raise, and how tokens are spelt."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from other_tokenizers import byte_level, words_alone
from ray.exceptions import ActorDiedError, RayError

from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord
from configs import EngineError
from orchestration.cluster.serving_sequences import HandleAsking, _spelling

REQUEST = GenerateRequest((1, 5), (2,), 4)


def answered(said: Failure | Exception) -> TeacherRecord | Failure:
    """What a desk gets where an engine's handle says this."""

    async def answer(request: GenerateRequest, k: int) -> Failure:
        assert (request, k) == (REQUEST, 3)
        if isinstance(said, Exception):
            raise said
        return said

    handle = SimpleNamespace(answer=SimpleNamespace(remote=answer))
    return asyncio.run(HandleAsking(handle).answer(REQUEST, k=3))


def test_what_an_engine_answers_goes_through() -> None:
    assert answered(Failure("the prompt is empty")) == Failure("the prompt is empty")


@pytest.mark.parametrize("error", [ActorDiedError(), RayError("the replica is gone\nand more")])
def test_an_engine_that_is_gone_is_an_engine_that_died(error: RayError) -> None:
    with pytest.raises(EngineError, match="an engine is gone") as raised:
        answered(error)
    assert "\n" not in str(raised.value)


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(EngineError, match=r"^out of memory$"):
        answered(EngineError("out of memory"))


def test_the_bytes_of_tokens_are_told_where_the_vocabulary_says_them(caplog: pytest.LogCaptureFixture) -> None:
    spelling = _spelling(byte_level(), label="a model")
    assert spelling is not None and b"\xe2" in spelling.tokens
    assert _spelling(words_alone(), label="a model") is None
    assert "tokens that are part of a character are told as U+FFFD: a model: which bytes" in caplog.text
