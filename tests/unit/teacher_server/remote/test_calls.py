"""A key that is seen nowhere and sent to nobody in the clear; no more requests than allowed; no faith in an answer."""

from __future__ import annotations

import threading

import httpx
import pytest

from configs import EngineError
from teacher_server.insisting import Refused
from teacher_server.remote.calls import Server, ServerSettings
from teacher_server.remote.choices import LieError

SECRET = "sk-secret"


def answering(*answers: httpx.Response, **settings: object) -> tuple[Server, list[httpx.Request]]:
    """A server that gives these answers, and what it was asked."""
    left, asked = list(answers), list[httpx.Request]()

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return left.pop(0)

    whole = ServerSettings("https://there/v1/", key=SECRET, budget_s=5.0, **settings)  # type: ignore[arg-type]
    return Server(whole, transport=httpx.MockTransport(respond)), asked


def test_the_key_goes_into_a_header_alone() -> None:
    server, asked = answering(httpx.Response(200, json={"a": 1}))
    assert server.post("completions", {"b": 2}) == {"a": 1}
    assert str(asked[0].url) == "https://there/v1/completions"
    assert asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(server.settings) + str(asked[0].url) + asked[0].content.decode()


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://there/v1", SECRET, "unencrypted: give an https address"),
        ("https://me:pass@there/v1", None, "holds a password"),
        ("there/v1", None, "no address of a server"),
        ("ftp://there/v1", None, "no address of a server"),
        ("https://there/v1", "kéy", "characters that no header can hold"),
        ("https://there/v1", "key\n", "characters that no header can hold"),
    ],
)
def test_addresses_and_keys_that_are_refused(url: str, key: str | None, said: str) -> None:
    with pytest.raises(EngineError, match=said) as error:
        Server(ServerSettings(url, key=key))
    assert "pass" not in str(error.value).replace("password", "")
    assert key is None or key not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_this_machine_is_spoken_to_in_the_clear(url: str) -> None:
    Server(ServerSettings(url, key=SECRET)).close()


def test_a_redirect_takes_the_key_nowhere() -> None:
    server, asked = answering(httpx.Response(307, headers={"Location": "https://elsewhere/v1"}))
    with pytest.raises(Refused, match="status 307"):
        server.post("completions", {})
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": f"Incorrect key {SECRET}"}}, r"status 401, Incorrect key \*\*\*$"),
        ({"error": "no\nway"}, "status 401, no way$"),
        ({"detail": "not here"}, "status 401, not here$"),
        ({"error": {"code": 3}}, "status 401$"),
    ],
)
def test_what_a_server_says_is_one_line_without_the_key(body: object, said: str) -> None:
    server, _ = answering(httpx.Response(401, json=body))
    with pytest.raises(Refused, match=said):
        server.post("completions", {})


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b"", b"\xff"])
def test_an_answer_that_is_no_object_is_a_lie(content: bytes) -> None:
    server, _ = answering(httpx.Response(200, content=content))
    with pytest.raises(LieError, match="no JSON object"):
        server.post("completions", {})


def test_a_busy_server_is_waited_for() -> None:
    server, asked = answering(
        httpx.Response(429, headers={"Retry-After": "0"}),
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.Response(200, json={}),
    )
    assert server.post("completions", {}) == {} and len(asked) == 3


def test_no_more_are_asked_in_a_minute_than_allowed() -> None:
    server, asked = answering(*[httpx.Response(200, json={})] * 3, requests_a_minute=2)
    told: list[str] = []

    def ask() -> None:
        try:
            server.post("completions", {})
        except EngineError as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    done = threading.Event()
    while sum(thread.is_alive() for thread in threads) > 1:
        done.wait(0.01)
    # The third waits for its turn until it is told that there will be none.
    server.close()
    for thread in threads:
        thread.join(30)
    assert len(asked) == 2 and told == ["the server is not asked any more"]
