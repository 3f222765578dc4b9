"""What passes by itself is waited for, everything else is said at once."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import httpx
import pytest

from configs import EngineError
from teacher_server.insisting import PASSING, Refused, insist, retry_after_s

ANSWER = httpx.Response(200)


def scripted(*script: httpx.Response | Exception) -> tuple[Callable[[], httpx.Response], list[object]]:
    """What gives one of these after the other, and those that are left."""
    left = list(script)

    def once() -> httpx.Response:
        said = left.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return once, left  # type: ignore[return-value]


@pytest.mark.parametrize("status", sorted(PASSING))
def test_what_passes_by_itself_is_tried_again(status: int) -> None:
    once, left = scripted(
        Refused("busy", status=status, retry_after_s=0.0), httpx.ConnectError("refused"), httpx.ReadTimeout(""), ANSWER
    )
    assert insist(once, server="http://there", budget_s=30.0) is ANSWER
    assert left == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500])
def test_a_no_is_told_at_once(status: int) -> None:
    once, left = scripted(Refused("no", status=status, retry_after_s=0.0), ANSWER)
    with pytest.raises(Refused, match="no"):
        insist(once, server="http://there", budget_s=30.0)
    assert left == [ANSWER]


def test_who_stays_away_or_busy_is_given_up() -> None:
    def away() -> httpx.Response:
        raise httpx.ConnectError("refused")

    def busy() -> httpx.Response:
        raise Refused("too much to do", status=429, retry_after_s=0.01)

    with pytest.raises(EngineError, match=r"http://there cannot be reached \(ConnectError: refused\), tried for 0.2 s"):
        insist(away, server="http://there", budget_s=0.2)
    with pytest.raises(Refused, match="too much to do"):
        insist(busy, server="http://there", budget_s=0.2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "Sat, 28 Nov 2026 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(httpx.Response(429, headers=headers)) == seconds


def test_a_refusal_travels_between_processes() -> None:
    told = pickle.loads(pickle.dumps(Refused("no", status=429, retry_after_s=2.0)))
    assert (str(told), told.status, told.retry_after_s) == ("no", 429, 2.0)


def test_whoever_waits_is_told_once_and_of_a_busy_server_never(caplog: pytest.LogCaptureFixture) -> None:
    once, _ = scripted(httpx.ConnectError("refused"), httpx.ConnectError("refused"), ANSWER)
    insist(once, server="http://there", budget_s=30.0)
    ours = [record.getMessage() for record in caplog.records if record.name == "teacher_server.insisting"]
    assert ours == ["http://there is away (refused): it is asked again, for up to 30 s"]
    caplog.clear()
    once, _ = scripted(Refused("much to do", status=429, retry_after_s=0.0), ANSWER)
    insist(once, server="http://there", budget_s=30.0)
    assert not [record for record in caplog.records if record.name == "teacher_server.insisting"]


def test_nothing_is_tried_again_once_it_is_let_go() -> None:
    let_go = threading.Event()
    let_go.set()
    once, left = scripted(httpx.ConnectError("refused"), ANSWER)
    with pytest.raises(EngineError, match="cannot be reached"):
        insist(once, server="http://there", budget_s=30.0, let_go=let_go)
    assert left == [ANSWER]
