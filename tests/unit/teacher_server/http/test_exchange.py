"""The id of a request, and the line that is written of it."""

from __future__ import annotations

import json
import logging
from datetime import datetime

import pytest

from teacher_server.http.exchange import ACCESS_LOG, CLIENT_GONE, Exchange, exchange_of, request_id
from teacher_server.http.guard import Key


@pytest.mark.parametrize("given", ["a", "A-1_2.3", "x" * 64])
def test_a_plain_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\n", 'a"', "ä", "x" * 65, "../../a"])
def test_any_other_gets_a_new_one(given: str | None) -> None:
    new = request_id(given)
    assert len(new) == 32 and new != request_id(given) and request_id(new) == new


def test_the_line_is_one_json_object_with_these_fields_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange("abc", "POST", route="/v1/score", status=200, rows=3, hits=2, teacher_tokens=40)
    exchange.key = Key("me", "0" * 64, ("ask",), 0.0)
    with caplog.at_level(logging.INFO, logger=ACCESS_LOG):
        exchange.write()
    [record] = caplog.records
    line = json.loads(record.getMessage())
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert 0 <= line.pop("ms") < 60_000
    assert line == {
        "request_id": "abc", "key": "me", "method": "POST", "route": "/v1/score", "status": 200, "rows": 3, "hits": 2,
        "teacher_tokens": 40,
    }  # fmt: skip


def test_what_ends_without_an_answer_is_a_client_that_went_away() -> None:
    exchange = Exchange("abc", "GET")
    assert exchange.status == CLIENT_GONE and exchange.key_name == ""
    assert exchange_of({"state": {"exchange": exchange}}) is exchange
