"""Who gets past the door of the MLflow UI."""

from __future__ import annotations

import asyncio

import pytest

from orchestration.tracking.guard import Guard, Message, Receive, Scope, Send

TOKEN = "t" * 43
HOST = ("host", "127.0.0.1:5000")
KNOWN = ("cookie", f"other=1; stillroom-ui-5000={TOKEN}")


def asked(
    path: str, *headers: tuple[str, str], method: str = "GET", query: str = ""
) -> tuple[int, dict[str, str], bool]:
    """Status and headers of the answer, and whether the application behind the guard gave it."""
    sent: list[Message] = []
    reached: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(Guard(app, token=TOKEN, port=5000)(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, bool(reached)


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/version", "/static-files/index.js", "/get-artifact", "/ajax-api/2.0/mlflow/runs/delete", "//x"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_without_a_login_nothing_answers(path: str, method: str) -> None:
    wrong = [
        ("cookie", "stillroom-ui-5000=wrong"),
        ("cookie", f"stillroom-ui-1={TOKEN}"),
        ("authorization", "Bearer x"),
    ]
    for headers in ([], *([each] for each in wrong), wrong):
        status, _, reached = asked(path, HOST, *headers, method=method, query="token=wrong")
        assert (status, reached) == (401, False)


@pytest.mark.parametrize("known", [KNOWN, ("authorization", f"Bearer {TOKEN}")])
@pytest.mark.parametrize("path", ["/", "/ajax-api/2.0/mlflow/runs/search", "/graphql", "/get-artifact"])
def test_with_a_login_everything_that_compares_runs_answers(known: tuple[str, str], path: str) -> None:
    assert asked(path, HOST, known)[0] == 200
    assert asked(path, ("host", "localhost:5000"), known, ("origin", "http://localhost:5000"), method="POST")[0] == 200


def test_the_printed_address_sets_a_cookie_and_leaves_no_token_in_the_address() -> None:
    status, headers, reached = asked("/", HOST, query=f"token={TOKEN}&page=a%26b")
    assert (status, reached) == (303, False)
    assert headers["location"] == "/?page=a%26b"
    assert headers["set-cookie"] == f"stillroom-ui-5000={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert headers["referrer-policy"] == "no-referrer"
    assert asked("//evil.example", HOST, query=f"token={TOKEN}")[1]["location"] == "/evil.example"
    assert asked("/", HOST, query=f"token={TOKEN}", method="POST")[0] == 401


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["10.evil.example:5000"],
        ["127.0.0.1.evil.example:5000"],
        ["127.0.0.1"],
        ["127.0.0.1:5001"],
        ["192.168.1.5:5000"],
        ["127.0.0.1:5000", "evil.example"],
    ],
)
def test_another_name_for_this_server_is_refused(hosts: list[str]) -> None:
    status, _, reached = asked("/", *[("host", host) for host in hosts], KNOWN, query=f"token={TOKEN}")
    assert (status, reached) == (403, False)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:6000", "https://127.0.0.1:5000", "null"])
def test_pages_of_others_cannot_use_the_login_of_a_browser(origin: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert asked("/ajax-api/2.0/mlflow/runs/delete", HOST, KNOWN, ("origin", origin), method=method)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/proxy/x/y",
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/jobs/",
        "/api/2.0/mlflow/webhooks/create",
        "/api/2.0/mlflow-artifacts/artifacts/x",
        "//Gateway//x",
    ],
)
def test_parts_that_run_programs_or_call_others_are_closed(path: str) -> None:
    assert asked(path, HOST, KNOWN, method="POST")[::2] == (404, False)


def test_browsers_leave_out_the_port_of_the_web() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    assert "127.0.0.1" in Guard(refuse, token=TOKEN, port=80)._hosts
    assert "127.0.0.1" not in Guard(refuse, token=TOKEN, port=5000)._hosts
