"""How a server of the OpenAI protocol is called: with a key, no faster than allowed, with patience.

The key goes into one header and nowhere else. It is never sent in the clear to another machine.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from configs.errors import EngineError
from configs.serving import LOOPBACK_NAMES
from teacher_server.insisting import Refused, certificates, insist, retry_after_s
from teacher_server.remote.choices import LieError

MOST_BYTES = 256 * 2**20
"""No answer to one request is longer."""

_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server is, and how it may be asked.

    `base_url` ends before `/completions` (`https://host/v1`). `budget_s` is how long one request may take with all its
    tries, `timeout_s` how long a single one waits for the server to say anything. `requests_a_minute` is what a hosted
    one allows; it says no for itself, too, which is waited for. `ca_file` holds the certificates that the server's is
    held against, where the system's do not know it.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)
    at_once: int = 8
    requests_a_minute: int | None = None
    budget_s: float = 1800.0
    timeout_s: float = 600.0
    ca_file: Path | None = None


class Server:
    """Calls to one server, from many threads. Close it.

    Attributes:
        let_go: Set once it is closed: nothing is tried again then.

    Raises:
        EngineError: the address is none that a key may be sent to, or there are no certificates.
    """

    def __init__(self, settings: ServerSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        self.settings = settings
        url = _url(settings.base_url)
        if settings.key is not None and url.scheme == "http" and url.host not in LOOPBACK_NAMES:
            raise EngineError(f"{settings.base_url}: a key would go there unencrypted: give an https address")
        # Headers hold Latin-1 alone, and what httpx says of others holds the key.
        if settings.key is not None and not (settings.key.isascii() and settings.key.isprintable()):
            raise EngineError(f"the key for {settings.base_url} holds characters that no header can hold")
        self.let_go = threading.Event()
        self._http = httpx.Client(
            base_url=settings.base_url.rstrip("/") + "/",
            headers={} if settings.key is None else {"Authorization": f"Bearer {settings.key}"},
            timeout=httpx.Timeout(settings.timeout_s, connect=30.0),
            limits=httpx.Limits(max_connections=settings.at_once, max_keepalive_connections=settings.at_once),
            # An address that sends elsewhere would have the key follow.
            follow_redirects=False,
            verify=True if settings.ca_file is None else certificates(settings.ca_file),
            transport=transport,
        )
        self._pace = _Pace(settings.requests_a_minute, let_go=self.let_go)

    def close(self) -> None:
        """Close the connections; what waits for its turn gives up, and nothing under way is waited for."""
        self.let_go.set()
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the server says to a body.

        Raises:
            Refused: it says no, or the budget is used up while it is busy.
            LieError: it answers with something else than an object.
            EngineError: it cannot be reached within the budget.
        """
        return _object(
            insist(
                lambda: self._once("POST", path, body),
                server=self.settings.base_url,
                budget_s=self.settings.budget_s,
                let_go=self.let_go,
            )
        )

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        self._pace.wait()
        response = self._http.request(method, path, json=body)
        if response.status_code == httpx.codes.OK:
            return response
        raise Refused(
            f"{self.settings.base_url} refuses {path}: {_reason(response, secret=self.settings.key)}",
            status=response.status_code,
            retry_after_s=retry_after_s(response),
        )


class _Pace:
    """No more than so many requests in any minute."""

    def __init__(self, a_minute: int | None, *, let_go: threading.Event) -> None:
        self._limit = None if a_minute is None else RateLimitItemPerMinute(a_minute)
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._let_go = let_go

    def wait(self) -> None:
        """Until the next one may go."""
        while self._limit is not None and not self._window.hit(self._limit, "requests"):
            if self._let_go.wait(_PAUSE_S):
                raise EngineError("the server is not asked any more")


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise EngineError(f"{text!r} is no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise EngineError(f"{text!r} is no address of a server: give one such as https://host/v1")
    if url.userinfo:
        raise EngineError("base_url holds a password, which logs would show: keys come from the environment")
    return url


def _object(response: httpx.Response) -> dict[str, Any]:
    if len(response.content) <= MOST_BYTES:
        with contextlib.suppress(ValueError):
            said = response.json()
            if isinstance(said, dict):
                return said
    raise LieError(f"an answer of {len(response.content):,} bytes that is no JSON object")


def _reason(response: httpx.Response, *, secret: str | None) -> str:
    """What a server says, in one line; of a stranger's page the status alone. A key that it repeats is cut out."""
    said: Any = None
    with contextlib.suppress(ValueError):
        said = response.json()
    if isinstance(said, Mapping):
        said = said.get("error", said.get("detail", said.get("message", said)))
    if isinstance(said, Mapping):
        said = said.get("message", said.get("reason"))
    if not isinstance(said, str):
        return f"status {response.status_code}"
    line = " ".join(said.split())[:500]
    return f"status {response.status_code}, {line if secret is None else line.replace(secret, '***')}"
