"""What a person sees: stages with their times, progress with a rate and the time left, tables.

On a terminal the progress is one live line; in a pipe it is a plain line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

PLAIN_EVERY_S = 15.0
"""Without a terminal, a progress line this often."""

PLAIN_WIDTH = 140
"""Columns of a table in a pipe, which has no width of its own; the usual 80 would cut numbers off."""


class Progress(Protocol):
    """Where a stage reports how far it is."""

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        """`done` units of the total are finished; `tokens` is a running count shown as a rate."""
        ...


class Console:
    """The user's terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._rich = RichConsole(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)
        self.times: list[tuple[str, float]] = []

    def say(self, message: RenderableType = "") -> None:
        """Print a line or a table."""
        if isinstance(message, str):
            # Left for the terminal to wrap, so that paths can be copied whole.
            self._rich.print(message, markup=False, soft_wrap=True)
        else:
            self._rich.print(message)

    def warn(self, message: str) -> None:
        """Print a line that asks for attention."""
        self._rich.print(Text(f"  ! {message}", style="yellow"), soft_wrap=True)

    @contextmanager
    def stage(self, title: str, *, total: float | None = None, unit: str = "") -> Iterator[StageProgress]:
        """Time a stage, show its progress and close it with one line.

        The body may set `summary` on the yielded progress.
        """
        started = time.monotonic()
        progress = StageProgress(title, total=total, unit=unit, started=started)
        if self._rich.is_terminal:
            with Live(progress, console=self._rich, refresh_per_second=4, transient=True):
                yield progress
        else:
            progress.plain = self
            self.say(f"- {title} ...")
            yield progress
        seconds = time.monotonic() - started
        self.times.append((title, seconds))
        self._rich.print(
            Text.assemble(("✓ ", "green"), (f"{title:<28}", "bold"), f"{clock(seconds):>8}  ", progress.summary),
            soft_wrap=True,
        )


class StageProgress:
    """Progress of one stage; renders itself as one line."""

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

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        """See `Progress`."""
        now = time.monotonic()
        # Rates leave the start-up out: they count from the first sign of work.
        if self._first is None and done > 0:
            self._first = (now, done, tokens or 0)
        self._done, self._tokens, self._note = done, tokens, note
        if self.plain is not None and now - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = now
            self.plain.say(f"  {self.line()}")

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
        return Text(f"{frame} {self.line()}", no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """`75` as `1m 15s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
