"""One request and its answer, as the layers of the door come to know it; and the line that is written of it.

The line holds who asked, what it cost and how it ended: never a body, a text, a token, a query or a path that nobody
serves, for anything might stand in those.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from teacher_server.http.guard import Key

ACCESS_LOG = "teacher_server.access"
"""The logger that gets one JSON object a request."""

CLIENT_GONE = 499
"""The status of a request whose client went away before there was an answer; as nginx has it."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger(ACCESS_LOG)


@dataclass(slots=True)
class Exchange:
    """What is known of a request so far. `rows` are those asked for, `hits` those that nobody was asked for.

    `openai` tells that its client speaks OpenAI's protocol, errors included.
    """

    request_id: str
    method: str
    openai: bool = False
    key: Key | None = None
    route: str = ""
    status: int = CLIENT_GONE
    answering: bool = False
    body_read: bool = False
    rows: int = 0
    hits: int = 0
    teacher_tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def key_name(self) -> str:
        """The name of the key, or "" where none was shown."""
        return "" if self.key is None else self.key.name

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def write(self) -> None:
        """Write the line of a request that has ended."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "key": self.key_name,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "ms": round(self.seconds * 1000, 1),
            "rows": self.rows,
            "hits": self.hits,
            "teacher_tokens": self.teacher_tokens,
        }
        _log.info("%s", json.dumps(line))


def request_id(given: str | None) -> str:
    """The id that a client gave its request where it is a plain one, else a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def exchange_of(scope: Any) -> Exchange:
    """That of a request whose outermost layer made one."""
    return cast("Exchange", scope["state"]["exchange"])
