"""What every client of a door shares: what is told of teachers is held to what a door tells (the rest: the clients' tests)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from doors import IDENTITY

from cache.identity import Identity
from configs import EngineError
from teacher_server.http.connection import DoorConnection, DoorSettings
from teacher_server.insisting import Refused

TOLD = {"name": "a", "identity": IDENTITY.digest(), "fields": asdict(IDENTITY), "more": 5}


def connection(told: object, *, teacher: str | None = None) -> DoorConnection:
    settings = DoorSettings("https://door", token="secret", teacher=teacher)
    return DoorConnection(settings, transport=httpx.MockTransport(lambda _: httpx.Response(200, json=told)))


def more_of(said: Mapping[str, Any], identity: Identity) -> int:
    assert identity == IDENTITY
    return int(said["more"])


def test_each_kind_of_teacher_is_found_by_its_name_or_as_the_only_one() -> None:
    told = {"teachers": [TOLD], "signals": [TOLD | {"name": "b", "more": 6}, TOLD | {"name": "c", "more": 7}]}
    assert connection(told).facts("teachers", more_of) == 5
    assert connection(told, teacher="c").facts("signals", more_of) == 7
    with pytest.raises(EngineError, match="serves b, c and teacher=None was asked for: name one of them"):
        connection(told).facts("signals", more_of)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"teachers": []}, "does not say who its teachers are as a door does: 'signals'"),
        ({"signals": []}, "serves no teacher of signals"),
        ({"signals": [TOLD | {"identity": "0" * 64}]}, "not that of its identity"),
        ({"signals": [{key: TOLD[key] for key in ("name", "identity", "fields")}]}, "does not say who"),
    ],
)
def test_a_door_that_says_it_otherwise_is_an_error(told: object, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        connection(told).facts("signals", more_of)


def test_what_is_closed_does_not_ask_again() -> None:
    def busy(_: httpx.Request) -> httpx.Response:
        door.close()
        return httpx.Response(503, headers={"Retry-After": "60"})

    door = DoorConnection(DoorSettings("https://door"), transport=httpx.MockTransport(busy))
    with pytest.raises(Refused, match="refused /v1/score: status 503"):
        door.post("/v1/score", {})
    assert door.let_go.is_set()
