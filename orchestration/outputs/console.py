"""What a person sees: stages with their times, progress with a rate and the time left, tables.

On a terminal the progress is one live line; in a pipe it is a plain line now and then. Text may come from strangers
(prompts, answers, archives, models): whatever it holds is shown and never obeyed, and secrets are not shown at all.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from configs.secrets import redact
from configs.visible_text import visible
from evaluation.results import Place
from orchestration.energy.readings import StageCosts
from orchestration.outputs.timeline import Timeline

PLAIN_EVERY_S = 15.0
"""Without a terminal, a progress line this often."""

WATCH_EVERY_S = 5.0
"""How often progress is watched at most (`StageProgress`)."""

PLAIN_WIDTH = 140
"""Columns of a table in a pipe, which has no width of its own; the usual 80 would cut numbers off."""

WARNING_CHARACTERS = 500
"""At most this much of a logged warning is shown; some libraries put a whole traceback into one."""


class ProgressSink(Protocol):
    """Where a stage reports how far it is."""

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        """`done` units of the total are finished; `tokens` is a running count shown as a rate."""
        ...


class Console:
    """The user's terminal. Of every stage that it shows, `costs` counts what it takes, and `timeline` notes when."""

    def __init__(self, stream: TextIO, *, costs: StageCosts | None = None, timeline: Timeline | None = None) -> None:
        width = None if stream.isatty() else PLAIN_WIDTH
        self._rich = RichConsole(file=stream, highlight=False, markup=False, emoji=False, width=width)
        self.times: list[tuple[str, float]] = []
        self.costs = costs or StageCosts()
        self.timeline = timeline or Timeline()
        self.warnings = WarningLines(self)
        self._warned: set[str] = set()

    def close(self) -> None:
        """Warnings that come later go to standard error: the stream is somebody else's again."""
        self.warnings.close()

    def say(self, message: str | Table = "") -> None:
        """Print a line or a table; a table that is wider than the terminal becomes a list of its rows."""
        if isinstance(message, str):
            # Left for the terminal to wrap, so that paths can be copied whole.
            self._rich.print(Text(_safe(message)), soft_wrap=True)
            return
        _make_safe(message)
        # What may wrap is text; only numbers that would be cut off make a list of a table.
        rigid = all(column.no_wrap for column in message.columns)
        if rigid and _width(message) > self._rich.width:
            self._rich.print(Text(_as_list(message)), soft_wrap=True)
        else:
            self._rich.print(message)

    def warn(self, message: str) -> None:
        """Print a line that asks for attention."""
        self._warned.add(message)
        self._rich.print(Text(f"  ! {_safe(message)}", style="yellow"), soft_wrap=True)

    def has_warned(self, message: str) -> bool:
        """Whether this very line was printed before, so that it need not be said again."""
        return message in self._warned

    @contextmanager
    def stage(
        self, title: str, *, total: float | None = None, unit: str = "", place: Place = "driver"
    ) -> Iterator[StageProgress]:
        """Time a stage, show its progress and close it with one line; `place` is what it runs on.

        The body may set `summary` on the yielded progress.
        """
        started = time.monotonic()
        progress = StageProgress(title, total=total, unit=unit, started=started)
        counted = self.timeline.span(title, place=place), self.costs.stage(title)
        if self._rich.is_terminal:
            with counted[0], counted[1], Live(progress, console=self._rich, refresh_per_second=4, transient=True):
                yield progress
        else:
            progress.plain = self
            self.say(f"- {title} ...")
            with counted[0], counted[1]:
                yield progress
        seconds = time.monotonic() - started
        self.times.append((title, seconds))
        self._rich.print(
            Text.assemble(
                ("✓ ", "green"), (f"{_safe(title):<28}", "bold"), f"{clock(seconds):>8}  ", _safe(progress.summary)
            ),
            soft_wrap=True,
        )


class StageProgress:
    """ProgressSink of one stage; renders itself as one line.

    `watch` is called every few seconds while there is progress, and may end the stage by raising.
    """

    def __init__(self, title: str, *, total: float | None, unit: str, started: float) -> None:
        self._title = title
        self._unit = unit
        self._started = started
        self._first: tuple[float, float, int] | None = None
        self._last_plain = started
        self._done = 0.0
        self._tokens: int | None = None
        self._note = ""
        self.total = total
        self.summary = ""
        self.plain: Console | None = None
        self.watch: Callable[[], None] | None = None
        self._last_watched = started

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        """See `ProgressSink`."""
        now = time.monotonic()
        # Rates leave the start-up out: they count from the first sign of work.
        if self._first is None and done > 0:
            self._first = (now, done, tokens or 0)
        self._done, self._tokens, self._note = done, tokens, note
        if self.plain is not None and now - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = now
            self.plain.say(f"  {self.line()}")
        if self.watch is not None and now - self._last_watched >= WATCH_EVERY_S:
            self._last_watched = now
            self.watch()

    def hashed(self, done: int, total: int) -> None:
        """Bytes of weights that are hashed by now, of a total; the stage counts them in MB."""
        self.total = total / 1e6
        self.update(done / 1e6)

    def line(self) -> str:
        """The current state as text: count, rate, time left."""
        now = time.monotonic()
        parts = [self._title, clock(now - self._started)]
        if self.total:
            parts.append(f"{self._done:,.0f}/{self.total:,.0f} {self._unit}")
        if self._first is not None and now > self._first[0]:
            began, done, tokens = self._first
            rate = (self._done - done) / (now - began)
            if self._tokens is not None and self._tokens > tokens:
                parts.append(f"{(self._tokens - tokens) / (now - began):,.0f} tok/s")
            if rate > 0 and self.total:
                parts.append(f"{clock(max(self.total - self._done, 0) / rate)} left")
        if self._note:
            parts.append(self._note)
        return "  ".join(parts)

    def __rich__(self) -> Text:
        """The live line."""
        frame = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(time.monotonic() * 4) % 10]
        return Text(f"{frame} {_safe(self.line())}", no_wrap=True, overflow="ellipsis")


class WarningLines(io.StringIO):
    """A stream for logging, whose lines appear above the live line of a console as long as that is open."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def write(self, text: str) -> int:
        """Print what a handler writes."""
        if self.closed:
            return sys.stderr.write(text)
        if text.strip():
            line = text.rstrip("\n")
            shown = line if len(line) <= WARNING_CHARACTERS else f"{line[:WARNING_CHARACTERS]} ... (see the log)"
            self._console.warn(shown)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def clock(seconds: float) -> str:
    """`75` as `1m 15s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def _safe(text: str) -> str:
    return visible(redact(text), lines=True)


def _make_safe(table: Table) -> None:
    """Escape every text of a table: its title, its headers and its cells."""
    if isinstance(table.title, str):
        table.title = visible(redact(table.title))
    for column in table.columns:
        column.header = visible(redact(column.header)) if isinstance(column.header, str) else column.header
        column._cells = [visible(redact(cell)) if isinstance(cell, str) else cell for cell in column._cells]


def _width(table: Table) -> int:
    """Columns that a table needs: its longest texts, two blanks in each cell, and the lines between."""
    texts = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return sum(max(map(cell_len, column)) + 3 for column in texts) + 1


def _as_list(table: Table) -> str:
    """Every row as its first cell and a line for each other one."""
    lines = [str(table.title)] if table.title else []
    headers = [str(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        lines.append(str(row[0]))
        lines += [f"  {header}: {cell}" for header, cell in zip(headers[1:], row[1:], strict=True)]
    return "\n".join(lines)
