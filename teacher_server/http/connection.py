"""Connections to a door: kept, tried again while what is in the way may pass, and held to who the teacher is.

What may pass by itself (a door that is busy, restarts or cannot be reached) is tried again within `budget_s`; what was
answered before a break is in the door's cache, so whoever asks again pays nothing for it.

The token goes into one header and nowhere else: no message, log or representation has it, and over plain HTTP it never
leaves this machine.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from cache.identity import Identity, parse_identity
from configs.errors import EngineError
from configs.serving import is_loopback
from teacher_server.http.wire import MEDIA_TYPE
from teacher_server.insisting import Refused, certificates, insist, retry_after_s

SPLIT_BY = frozenset({413, 422})
"""Statuses of a body that asks for too much or for something wrong: of a batch, one row may be to blame."""

Kind = Literal["teachers", "signals"]
"""Those of sequences and those of signals, as `GET /v1/teachers` lists them."""

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where the door is and how it is asked.

    `teacher` is its name there, needed where the door serves several. `budget_s` is how long one batch may take with
    all its tries; `timeout_s` how long a single one waits for the door to say anything. `ca_file` holds the
    certificates that the door's is held against, where the system's do not know it.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    teacher: str | None = None
    batch_rows: int = 32
    batches: int = 4
    budget_s: float = 3600.0
    timeout_s: float = 900.0
    ca_file: Path | None = None


class DoorConnection:
    """A door that is asked. Once it is closed nothing is tried again, and whoever watches `let_go` stops.

    Raises:
        EngineError: the token would leave this machine unencrypted, or stands in the address.
    """

    def __init__(self, settings: DoorSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        _require_private(settings)
        self.let_go = threading.Event()
        self._settings = settings
        headers = {} if settings.token is None else {"Authorization": f"Bearer {settings.token}"}
        self._http = httpx.Client(
            base_url=settings.url,
            headers=headers,
            timeout=httpx.Timeout(settings.timeout_s, connect=30.0),
            limits=httpx.Limits(max_connections=settings.batches, max_keepalive_connections=settings.batches),
            verify=True if settings.ca_file is None else certificates(settings.ca_file),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections. Nothing under way is waited for, nor tried again; whoever waits for it stops."""
        self.let_go.set()
        self._http.close()

    def facts(self, kind: Kind, read: Callable[[Mapping[str, Any], Identity], Facts]) -> Facts:
        """What the door says of the teacher that `DoorSettings.teacher` names, or of its only one, as `read` has it.

        Raises:
            EngineError: the door cannot be reached within its budget, lets nobody in with this token, or lacks the
                teacher; it is no door, or gives a digest that is not that of its teacher.
        """
        url, said = self._settings.url, self._insist("GET", "/v1/teachers", None).json()
        try:
            teachers = {each["name"]: each for each in said[kind]}
            wanted = self._settings.teacher or (next(iter(teachers)) if len(teachers) == 1 else None)
            if wanted not in teachers:
                raise EngineError(
                    f"{url} serves {', '.join(teachers) or _none(kind)} and teacher={wanted} was asked for: "
                    "name one of them"
                )
            identity = parse_identity(teachers[wanted]["fields"])
            if identity.digest() != teachers[wanted]["identity"]:
                raise EngineError(f"{url} gives a digest of {wanted} that is not that of its identity")
            return read(teachers[wanted], identity)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"{url} does not say who its teachers are as a door does: {error}") from error

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The arrays that answer a body, tried again while what is in the way may pass, within the budget.

        Raises:
            Refused: the door said no, or the budget is used up while it is busy.
            EngineError: it cannot be reached within the budget.
        """
        return self._insist("POST", path, body).content

    def _insist(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        return insist(
            lambda: self._once(method, path, body),
            server=self._settings.url,
            budget_s=self._settings.budget_s,
            let_go=self.let_go,
        )

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        accept = "application/json" if body is None else MEDIA_TYPE
        response = self._http.request(method, path, json=body, headers={"Accept": accept})
        if response.status_code == httpx.codes.OK:
            return response
        raise Refused(
            f"the door refused {path}: {_reason(response)}",
            status=response.status_code,
            retry_after_s=retry_after_s(response),
        )


class DoorClient:
    """Whoever asks one teacher behind a door, over connections of its own. Close it, or use it as a context."""

    def __init__(self, settings: DoorSettings, *, transport: httpx.BaseTransport | None) -> None:
        self._settings = settings
        self._door = DoorConnection(settings, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Nothing under way is waited for, nor tried again; whoever waits for it stops."""
        self._door.close()

    def _told(self, kind: Kind, read: Callable[[Mapping[str, Any], Identity], Facts]) -> Facts:
        """What the door tells of the teacher (`DoorConnection.facts`); without it there is nobody to ask."""
        try:
            return self._door.facts(kind, read)
        except BaseException:
            self._door.close()
            raise


def _none(kind: Kind) -> str:
    return "no teacher" if kind == "teachers" else "no teacher of signals"


def _require_private(settings: DoorSettings) -> None:
    """Refuse to send a token where anybody on the way could read it, and a password within the address.

    Raises:
        EngineError: naming the cure.
    """
    url = httpx.URL(settings.url)
    if url.userinfo:
        raise EngineError(f"the address of the door at {url.host} holds a user or password: give the token apart")
    if settings.token is not None and url.scheme != "https" and not is_loopback(url.host):
        raise EngineError(
            f"{settings.url} would send the token unencrypted to another machine: ask the door over https://, or over "
            "loopback (a tunnel)"
        )


def _reason(response: httpx.Response) -> str:
    """What the door says, in one line; of a stranger's page the status alone."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return " ".join(str(response.json()["error"]["reason"]).split())[:500]
    return f"status {response.status_code}"
