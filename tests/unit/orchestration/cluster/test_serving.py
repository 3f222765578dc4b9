"""The door under Ray Serve, without a cluster: what engines raise, where it listens, what is logged (whole: tests/slow)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from other_tokenizers import byte_level, words_alone
from ray import serve
from ray.exceptions import ActorDiedError, RayError
from ray.serve._private import api

from cache.protocols import Failure
from cache.records import GenerateRequest, TeacherRecord
from configs import EngineError
from configs.serving import ServeConfig
from orchestration.cluster.serving import LISTENING_S, HandleAsking, _http, _spelling, _why, _write_accesses, open_door
from teacher_server.http.exchange import ACCESS_LOG, Exchange

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


@pytest.mark.parametrize("error", [RuntimeError("port taken"), ActorDiedError(), TimeoutError("not up")])
def test_a_door_that_cannot_be_opened_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    waited = []

    def start(**_: object) -> None:
        waited.append(api.HTTP_PROXY_TIMEOUT)
        raise error

    before = api.HTTP_PROXY_TIMEOUT
    monkeypatch.setattr(serve, "start", start)
    with pytest.raises(EngineError, match=r"^the door cannot be opened \(.+\); its logs are in") as raised:
        open_door({}, ServeConfig(), tokens=tmp_path / "tokens.json", log_dir=tmp_path)
    assert "\n" not in str(raised.value) and waited == [LISTENING_S] and before == api.HTTP_PROXY_TIMEOUT


def test_the_door_listens_where_it_is_told_and_with_tls_where_there_are_files() -> None:
    plain = _http(ServeConfig(port=9001))
    assert (plain.host, plain.port, plain.ssl_certfile) == ("127.0.0.1", 9001, None)
    tls = _http(ServeConfig(host="10.1.2.3", certificate=Path("door.pem"), private_key=Path("door.key")))
    assert (tls.host, tls.ssl_certfile, tls.ssl_keyfile) == ("10.1.2.3", "door.pem", "door.key")


def test_of_a_page_of_serve_the_line_that_says_it_is_told() -> None:
    page = "Deploying app 'stillroom' failed:\n  Traceback\n  configs.errors.EngineError: out of memory\nsee the logs\n"
    assert _why(RuntimeError(page)) == "configs.errors.EngineError: out of memory"
    assert _why(RuntimeError("no more")) == "no more" and _why(RuntimeError()) == "RuntimeError"


@pytest.fixture
def accesses() -> Iterator[logging.Logger]:
    logger = logging.getLogger(ACCESS_LOG)
    before, level, propagates = list(logger.handlers), logger.level, logger.propagate
    yield logger
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = propagates


def test_each_request_is_a_line_of_a_file_that_may_be_rotated(tmp_path: Path, accesses: logging.Logger) -> None:
    path = tmp_path / "access.jsonl"
    _write_accesses(path)
    Exchange("one", "GET").write()
    path.rename(tmp_path / "rotated")
    Exchange("two", "GET").write()
    assert '"request_id": "one"' in (tmp_path / "rotated").read_text()
    assert '"request_id": "two"' in path.read_text() and not accesses.propagate
