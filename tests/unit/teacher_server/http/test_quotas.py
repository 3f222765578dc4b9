"""How much a key may ask for in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from teacher_server.http.quotas import SHARES, Quotas
from teacher_server.http.refusals import Refusal


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def refused(use: Callable[[], None]) -> Refusal:
    with pytest.raises(Refusal) as found:
        use()
    return found.value


def test_as_many_requests_as_the_minute_holds(clock: Clock) -> None:
    quotas = Quotas(requests_a_minute=3)
    for wait in (0.0, 20.0, 10.0):
        clock.now += wait
        quotas.count_request("a")
    over = refused(lambda: quotas.count_request("a"))
    assert (over.status, over.code, over.reason) == (429, "over_quota", "a has used the 3 requests of this minute")
    # The first of them was counted 30 seconds ago.
    assert over.headers == {"Retry-After": "30"}
    clock.now += 31.0
    quotas.count_request("a")
    assert refused(lambda: quotas.count_request("a")).status == 429


def test_every_key_has_a_quota_of_its_own(clock: Clock) -> None:
    quotas = Quotas(requests_a_minute=1)
    quotas.count_request("a")
    quotas.count_request("b")
    assert refused(lambda: quotas.count_request("b")).status == 429


def test_tokens_are_charged_beforehand_and_what_is_refused_costs_nothing(clock: Clock) -> None:
    quotas = Quotas(tokens_a_minute=100)
    quotas.charge("a", tokens=60)
    over = refused(lambda: quotas.charge("a", tokens=41))
    assert (over.status, over.headers["Retry-After"]) == (429, "60")
    quotas.charge("a", tokens=40)
    quotas.charge("a", tokens=0)
    assert refused(lambda: quotas.charge("a", tokens=1)).reason == "a has used the 100 tokens of this minute"
    clock.now += 61.0
    quotas.charge("a", tokens=100)


def test_what_fits_into_no_minute_is_not_told_to_wait(clock: Clock) -> None:
    over = refused(lambda: Quotas(tokens_a_minute=100).charge("a", tokens=101))
    assert over.status == 413 and not over.headers
    assert over.reason == "requests: 101 tokens for the teacher are more than the 100 tokens a minute of a"


def test_a_large_quota_is_counted_in_shares(clock: Clock) -> None:
    quotas = Quotas(tokens_a_minute=100 * SHARES)
    quotas.charge("a", tokens=100 * (SHARES - 1) - 50)
    quotas.charge("a", tokens=1)
    assert refused(lambda: quotas.charge("a", tokens=1)).status == 429


def test_without_quotas_nothing_is_counted() -> None:
    quotas = Quotas()
    for _ in range(100):
        quotas.count_request("a")
        quotas.charge("a", tokens=10**12)
