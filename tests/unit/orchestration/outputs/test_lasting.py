"""A stream whose reader is gone costs nothing but what would have been read."""

from __future__ import annotations

import os

from orchestration.outputs.console import Console
from orchestration.outputs.lasting import lasting_stream


def test_a_reader_that_goes_away_costs_only_what_it_would_have_read() -> None:
    reading, writing = os.pipe()
    stream = lasting_stream(writing)
    console = Console(stream)
    console.say("before")
    assert os.read(reading, 99) == b"before\n"
    os.close(reading)
    with console.stage("fill") as stage:
        stage.update(1.0)
        console.warn("nobody hears this")
        stage.summary = "done"
    console.say("after")
    stream.flush()
    stream.close()
    assert console.times[0][0] == "fill"
