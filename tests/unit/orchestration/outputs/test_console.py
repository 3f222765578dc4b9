"""What a person sees of a run, in a pipe and on a terminal. The clock is set by hand."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table

from orchestration.outputs.console import PLAIN_EVERY_S, Console, StageProgress, clock

ROOT = Path(__file__).resolve().parents[4]


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


EVIL = "a\x1b[2J\u202eb :smile: [red]c[/red]"
SHOWN = "a\\x1b[2J\\u202eb :smile: [red]c[/red]"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_text_of_strangers_is_shown_and_not_obeyed(kind: type[io.StringIO]) -> None:
    stream = kind()
    console = Console(stream)
    console.say(EVIL)
    console.warn(EVIL)
    table = Table(title=EVIL)
    table.add_column(EVIL, no_wrap=True)
    table.add_column("n", no_wrap=True)
    table.add_row(EVIL, "7")
    console.say(table)
    with console.stage(EVIL) as stage:
        stage.update(1, note=EVIL)
        stage.summary = EVIL
    text = stream.getvalue()
    assert text.count(SHOWN) >= 7
    assert "\u202e" not in text and "\x1b[2J" not in text and "😄" not in text


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_12345")
    stream = io.StringIO()
    table = Table("hf_12345")
    table.add_row("hf_12345")
    Console(stream).say("hf_12345 at http://me:hunter2@x")
    Console(stream).say(table)
    assert "hf_12345" not in stream.getvalue() and "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("<HF_TOKEN>") == 3


@pytest.mark.parametrize("columns", [40, 200])
def test_a_narrow_terminal_shows_every_number(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    table = Table(title="comparison")
    for title in ("model", "KL(teacher‖·)", "top-1", "Rouge-L", "ppl", "tok/s"):
        table.add_column(title, no_wrap=True)
    table.add_row("kd", "0.848 ± 0.060", "57.5 %", "28.9", "5.52", "903")
    table.add_row("minillm", "0.972 ± 0.067", "57.6 %", "27.8", "5.25", "919")
    Console(stream).say(table)
    text = stream.getvalue()
    assert all(number in text for number in ("0.848 ± 0.060", "57.6 %", "28.9", "5.25", "919"))
    lines = text.splitlines()
    assert ("│" in text) == (columns == 200)
    if columns == 40:
        assert lines[:3] == ["comparison", "kd", "  KL(teacher‖·): 0.848 ± 0.060"]


def test_a_warning_that_holds_pages_is_cut_on_the_terminal() -> None:
    stream = io.StringIO()
    warnings = Console(stream).warnings
    warnings.write("the first words " + "of a traceback " * 1000 + "\n")
    warnings.write("short\n")
    long, short = stream.getvalue().splitlines()
    assert long.startswith("  ! the first words of a traceback") and long.endswith("... (see the log)")
    assert len(long) < 550
    assert short == "  ! short"


def test_warnings_reach_the_terminal_while_standard_error_is_redirected(tmp_path: Path) -> None:
    """In a process of its own, as a run is: a redirection of descriptors would take the test's own output along."""
    code = f"""
import logging
from contextlib import closing
from pathlib import Path
from configs import configure_logging
from orchestration.outputs.console import Console
from orchestration.outputs.redirect import terminal_kept
log = Path({str(tmp_path / "driver.log")!r})
with terminal_kept(log) as terminal, closing(Console(terminal)) as console:
    configure_logging(log, console=console.warnings)
    logging.getLogger("orchestration.fill.fill").warning("an engine died")
    logging.getLogger("urllib3").warning("foreign noise")
    print("not for the terminal")
logging.getLogger("orchestration.fill.fill").warning("late")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout == "  ! warning: an engine died\n"
    assert done.stderr == "warning: late\n"
    log = (tmp_path / "driver.log").read_text()
    assert all(words in log for words in ("an engine died", "foreign noise", "not for the terminal", "late"))
