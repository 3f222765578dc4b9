"""The door of the MLflow UI: a login, exact host names, and only those parts that comparing runs needs.

MLflow itself asks nobody who he is, takes every private-looking Host header, and lets every page on this machine call
its API. This is the outermost layer of the application (ASGI), so nothing of MLflow answers before it has looked:
whoever reaches the port needs the token that `distill ui` printed, as `?token=` once (a browser then keeps a cookie)
or as `Authorization: Bearer`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSED = frozenset(
    {
        "assistant", "demo", "gateway", "gateway-proxy", "invocations", "jobs", "mcp-servers", "mlflow-artifacts",
        "prompt-optimization", "scorer", "webhooks",
    }
)  # fmt: skip
"""Segments of paths that run programs, send requests of their own, or store files of others."""

LOGIN = "This page needs a login: open the address that `distill ui` printed, with its token.\n"


class Guard:
    """Lets requests to `app` pass that name this server and come from its owner."""

    def __init__(self, app: App, *, token: str, port: int) -> None:
        self._app = app
        self._token = token
        names = ("127.0.0.1", "localhost")
        # Browsers leave out the port that a scheme has anyhow.
        self._hosts = frozenset({f"{name}:{port}" for name in names} | set(names if port == 80 else ()))
        # Browsers send the cookies of a host to all of its ports.
        self._cookie = f"stillroom-ui-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return await _answer(send, 403, "This server has another name: open the address that was printed.\n")
        # Pages of other ports on this machine count as the same site for cookies, but not as the same origin.
        if any(origin != f"http://{hosts[0]}" for origin in headers.get("origin", [])):
            return await _answer(send, 403, "Requests from other pages are refused.\n")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        offered = [value for name, value in query if name == "token"]
        if offered and scope["method"] == "GET" and self._is_token(offered[0]):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            return await self._log_in(send, path=scope["path"], query=rest)
        if not self._is_known(headers):
            return await _answer(send, 401, LOGIN, ("www-authenticate", "Bearer"))
        if CLOSED & set(scope["path"].lower().split("/")):
            return await _answer(send, 404, json.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": "turned off"}))
        return await self._app(scope, receive, send)

    def _is_known(self, headers: dict[str, list[str]]) -> bool:
        for value in headers.get("authorization", []):
            scheme, _, given = value.partition(" ")
            if scheme.lower() == "bearer" and self._is_token(given.strip()):
                return True
        cookies: SimpleCookie = SimpleCookie()
        for value in headers.get("cookie", []):
            try:
                cookies.load(value)
            except CookieError:
                continue
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    async def _log_in(self, send: Send, *, path: str, query: str) -> None:
        """Keep the token in a cookie and out of the address, which browsers remember and pass on."""
        # A path that begins with two slashes would be another server.
        target = "/" + quote(path.lstrip("/\\")) + (f"?{query}" if query else "")
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, "", ("location", target), ("set-cookie", cookie))


async def _answer(send: Send, status: int, text: str, *headers: tuple[str, str]) -> None:
    body = text.encode()
    fixed = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in (*fixed, *headers)]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
