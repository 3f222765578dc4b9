"""What Ray Serve's proxy, the process that listens, is made to do with connections and with words of its own.

Serve has no settings for either, but calls a function of ours in that process before it listens
(`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`). Imports neither Ray nor an engine.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.middleware import Middleware
from uvicorn.config import HTTP_PROTOCOLS

from configs.serving import ServeConfig
from teacher_server.http.bounds import ConnectionLimits, bounded
from teacher_server.http.front import Front

CALLED = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
SETTINGS = "STILLROOM_DOOR_FRONT"
"""The variable with those settings of the door that are the proxy's, as JSON; without it they have their defaults."""

PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "150", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
"""Serve kills a proxy that is not up within 5 s of its creation, before it is imported where cores are busy, and
one that does not say within 10 s that it is well; the first time ends `serve.start`."""

SPARE_FILES = 256
"""File descriptors that the process needs besides connections."""


class FrontSettings(BaseModel):
    """Those of `runtime.serve` that the process that listens has to know."""

    headers_s: float = ServeConfig().headers_s
    stalled_s: float = ServeConfig().stalled_s
    most_connections: int = ServeConfig().most_connections
    most_body_bytes: int = ServeConfig().most_body_bytes


def front_environment(settings: ServeConfig) -> Mapping[str, str]:
    """The environment of a Serve whose proxy calls `front` and is given time."""
    wanted = FrontSettings.model_validate(settings.model_dump(include=set(FrontSettings.model_fields)))
    return PATIENCE | {CALLED: f"{__name__}:{front.__name__}", SETTINGS: wanted.model_dump_json()}


def front() -> list[Middleware]:
    """Called in the proxy: bounds the connections of uvicorn in this process; what stands around Serve's app."""
    settings = FrontSettings.model_validate_json(os.environ.get(SETTINGS, "{}"))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = settings.most_connections if files == resource.RLIM_INFINITY else max(files - SPARE_FILES, 1)
    limits = ConnectionLimits(
        headers_s=settings.headers_s,
        stalled_s=settings.stalled_s,
        most_connections=min(settings.most_connections, room),
    )
    # uvicorn takes a class where it has a name, and Serve leaves the choice to uvicorn ("auto").
    HTTP_PROTOCOLS["auto"] = bounded(limits)  # type: ignore[assignment]
    return [Middleware(Front, most_body_bytes=settings.most_body_bytes)]
