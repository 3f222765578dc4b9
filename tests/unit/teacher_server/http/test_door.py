"""What stands behind the routes of an app."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import EOS, Gated, OpenDoor, at_door

from cache.records import GenerateRequest
from teacher_server.http.door import Door
from teacher_server.http.exchange import Exchange
from teacher_server.http.guard import Key
from teacher_server.http.refusals import Refusal


def test_answers_are_counted_and_written_down_for_whoever_asks(tmp_path: Path) -> None:
    async def play(opened: OpenDoor) -> None:
        door: Door = opened.app.state.door
        requests = [GenerateRequest((1, 5), (EOS,), 4), GenerateRequest((1, 6), (EOS,), 4)]
        for hits in (0, 2):
            exchange = Exchange("an-id", "POST", key=Key("me", "0" * 64, ("ask",), 0.0))
            answers = await door.answers(exchange, requests, k=1, name="noise")
            assert [each.cached for each in answers] == [bool(hits)] * 2
            assert (exchange.rows, exchange.hits, exchange.teacher_tokens > 0) == (2, hits, not hits)
        assert 'stillroom_rows_total{result="hit",teacher="noise"} 2.0' in door.metrics.text().decode()

    at_door(tmp_path, play)


def test_a_teacher_is_found_by_its_name_and_the_field_that_lacks_one_is_named(tmp_path: Path) -> None:
    async def play(opened: OpenDoor) -> None:
        door: Door = opened.app.state.door
        assert door.served("other")[0] == "other"
        with pytest.raises(Refusal, match=r"^model: no such one here, only noise, other$") as unknown:
            door.served("x", field="model")
        assert (unknown.value.status, unknown.value.code, unknown.value.param) == (404, "unknown_teacher", "model")
        with pytest.raises(Refusal, match=r"^teacher: name one of noise, other$") as unnamed:
            door.served(None)
        assert (unnamed.value.status, unnamed.value.code, unnamed.value.param) == (422, "which_teacher", "teacher")

    at_door(tmp_path, play, asking=Gated(), names=["noise", "other"])
