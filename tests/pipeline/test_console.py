"""What a person sees of a run, in a pipe and on a terminal. The clock is set by hand."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from rich.table import Table

from orchestration.console import PLAIN_EVERY_S, Console, StageProgress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that the console reads; it starts at 1000 s."""
    at = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return lambda seconds: at.__setitem__(0, 1000.0 + seconds)


def begun(*, total: float | None = 100) -> StageProgress:
    return StageProgress("fill", total=total, unit="rows", started=1000.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (75, "1m 15s"),
        (3599, "59m 59s"),
        (3661, "1h 01m"),
        (90_000, "25h 00m"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_rate_and_time_left_count_from_the_first_sign_of_work(now: Callable[[float], None]) -> None:
    # A minute of start-up, then 10 rows and 200 tokens at once, then 10 rows and 500 tokens in 20 seconds.
    progress = begun()
    progress.update(0, tokens=0)
    now(60)
    progress.update(10, tokens=200)
    now(80)
    progress.update(20, tokens=700)
    assert progress.line() == "fill  1m 20s  20/100 rows  25 tok/s  2m 40s left"


def test_a_resumed_stage_does_not_count_what_was_there_before(now: Callable[[float], None]) -> None:
    progress = begun()
    now(5)
    progress.update(90)
    now(15)
    progress.update(91)
    assert progress.line().endswith("91/100 rows  1m 30s left")


def test_without_work_there_is_no_rate(now: Callable[[float], None]) -> None:
    progress = begun()
    now(5)
    progress.update(0, tokens=0, note="loading")
    assert progress.line() == "fill  5s  0/100 rows  loading"


def test_a_stage_that_does_more_than_it_promised_is_at_its_end(now: Callable[[float], None]) -> None:
    progress = begun()
    progress.update(1)
    now(10)
    progress.update(101)
    assert progress.line().endswith("0s left")


def test_a_pipe_gets_plain_lines(now: Callable[[float], None]) -> None:
    stream = io.StringIO()
    console = Console(stream)
    with console.stage("fill", total=4, unit="rows") as stage:
        stage.update(1)
        now(PLAIN_EVERY_S)
        stage.update(2)
        stage.update(3)
        now(PLAIN_EVERY_S + 5)
        stage.update(4)
        stage.summary = "4 new rows"
    lines = stream.getvalue().splitlines()
    assert lines == [
        "- fill ...",
        "  fill  15s  2/4 rows  30s left",
        f"✓ {'fill':<28}     20s  4 new rows",
    ]
    assert console.times == [("fill", 20.0)]


def test_a_terminal_gets_one_live_line_that_goes_away() -> None:
    stream = Terminal()
    with Console(stream).stage("fill", total=4, unit="rows") as stage:
        stage.update(1)
    assert "\x1b[" in stream.getvalue()
    assert "- fill ..." not in stream.getvalue()
    assert "1/4 rows" in stream.getvalue()


def test_a_stage_that_fails_is_not_ticked_off() -> None:
    stream = io.StringIO()
    console = Console(stream)
    with pytest.raises(RuntimeError), console.stage("fill"):
        raise RuntimeError("no")
    assert "✓" not in stream.getvalue()
    assert console.times == []


def test_text_is_printed_as_it_is() -> None:
    stream = io.StringIO()
    console = Console(stream)
    path = "/" + "a-long-folder/" * 30 + "report.md"
    console.say(f"[bold]not markup[/bold] {path}")
    console.warn(f"[red]nor this[/red] {path}")
    assert stream.getvalue().splitlines() == [
        f"[bold]not markup[/bold] {path}",
        f"  ! [red]nor this[/red] {path}",
    ]


def test_a_wide_table_is_whole_in_a_pipe() -> None:
    stream = io.StringIO()
    table = Table()
    for column in range(8):
        table.add_column(f"column {column}", no_wrap=True)
    table.add_row(*[f"value {column:>6}" for column in range(8)])
    Console(stream).say(table)
    assert all(f"value {column:>6}" in stream.getvalue() for column in range(8))
