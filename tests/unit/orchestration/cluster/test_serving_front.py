"""What the process that listens is told (whole: tests/slow/test_door_faults.py)."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import uvicorn
from ray.serve._private import constants
from uvicorn.config import HTTP_PROTOCOLS

from configs.serving import ServeConfig
from orchestration.cluster.serving_front import CALLED, PATIENCE, SETTINGS, SPARE_FILES, front, front_environment
from teacher_server.http.bounds import BoundedConnection
from teacher_server.http.front import Front


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = dict(HTTP_PROTOCOLS)
    yield
    HTTP_PROTOCOLS.update(before)


def listener() -> type[BoundedConnection]:
    """What a server of this process speaks that is not told otherwise."""
    config = uvicorn.Config("a:b")
    return HTTP_PROTOCOLS[str(config.http)]  # type: ignore[return-value]


def test_the_settings_of_the_door_reach_connections_and_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeConfig(headers_s=1.5, stalled_s=2.5, most_connections=7, most_body_bytes=99)
    environment = front_environment(settings)
    assert environment[CALLED] == "orchestration.cluster.serving_front:front"
    monkeypatch.setenv(SETTINGS, environment[SETTINGS])
    [middleware] = front()
    limits = listener().limits
    assert (limits.headers_s, limits.stalled_s, limits.most_connections) == (1.5, 2.5, 7)
    assert middleware.cls is Front and middleware.kwargs == {"most_body_bytes": 99}


def test_serve_has_the_settings_by_which_it_waits_for_whoever_listens() -> None:
    """They are read once, where Serve is imported, and unknown ones are ignored."""
    names = {name.removeprefix("RAY_SERVE_") for name in PATIENCE}
    assert all(isinstance(getattr(constants, name), float) for name in names)
    assert PATIENCE.items() <= front_environment(ServeConfig()).items()


def test_there_are_fewer_connections_than_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTINGS, raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (SPARE_FILES + 5, 10**6))
    front()
    assert listener().limits.most_connections == 5
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    front()
    assert listener().limits.most_connections == ServeConfig().most_connections
