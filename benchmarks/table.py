"""The table that is printed: rows as they come, grouped by benchmark in columns that are the same for all of them.

Progress goes to standard error, on one line that is written over where that is a terminal.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from itertools import zip_longest
from textwrap import wrap
from typing import TextIO

from benchmarks.measurement import Failure, Measurement, Row

WHAT, MEASURED, TARGET, PEERS = 62, 22, 22, 38
"""Characters of each column; what is longer goes on below."""

GAP = "  "
HEADINGS = ("what", "measured", "target", "peers, in the same unit")


def number(value: float, *, digits: int) -> str:
    """A value with so many digits behind the point; small ones that would be zero with two that count."""
    if value and math.isfinite(value) and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}"


def cells(row: Measurement) -> tuple[str, str, str, str]:
    """The four columns of a measurement."""
    measured = f"{number(row.value, digits=row.digits)} {row.unit.strip()}".rstrip()
    target = ""
    if row.target is not None:
        target = f"{row.target.kind} {row.target.bound:,g}: {'met' if row.met else 'MISSED'}"
    peers = ", ".join(f"{name} {number(value, digits=row.digits)}" for name, value in row.peers.items())
    return row.what, measured, target, peers


def lines(row: Row) -> list[str]:
    """A row of any kind as it is printed."""
    if isinstance(row, Failure):
        told = f"FAILED: {row.reason}" + (f" (log: {row.log})" if row.log else "")
        return wrap(told, _width(), initial_indent=GAP, subsequent_indent=2 * GAP)
    if isinstance(row, str):
        return wrap(row, _width(), initial_indent=f"{GAP}- ", subsequent_indent=2 * GAP)
    return _columns(cells(row)) + ([] if not row.note else lines(row.note))


@dataclass(slots=True)
class Table:
    """Writes rows, and counts what they say.

    Attributes:
        rows: All that was said, by benchmark.
    """

    out: TextIO = field(default_factory=lambda: sys.stdout)
    progress: TextIO = field(default_factory=lambda: sys.stderr)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    _shown: bool = False

    def begin(self, *, machine: str) -> None:
        """The headings, below what the machine is."""
        for line in (*wrap(machine, _width()), *_columns(HEADINGS), "-" * _width()):
            print(line, file=self.out, flush=True)

    def group(self, name: str) -> None:
        """The rows that come now are those of this benchmark."""
        self.rows[name] = []
        print(name, file=self.out, flush=True)

    def add(self, row: Row) -> None:
        """One more row of the last group."""
        self._clear()
        self.rows[list(self.rows)[-1]].append(row)
        for line in lines(row):
            print(line, file=self.out, flush=True)

    def running(self, what: str, *, since: float) -> None:
        """Say on standard error what is going on, and for how long; once where that is not a terminal."""
        seconds = time.monotonic() - since
        if self.progress.isatty():
            print(f"\r\x1b[K{what}, {seconds:.0f} s", end="", file=self.progress, flush=True)
            self._shown = True
        elif seconds < 1.0:
            print(what, file=self.progress, flush=True)

    def end(self) -> None:
        """How many targets were met, and what was not."""
        self._clear()
        print("-" * _width(), file=self.out)
        print(self.summary(), file=self.out, flush=True)

    def summary(self) -> str:
        """Targets met and missed, and the benchmarks that failed by name."""
        found = [row.met for rows in self.rows.values() for row in rows if isinstance(row, Measurement)]
        told = f"targets: {found.count(True)} met, {found.count(False)} missed"
        return told if not self.failed else f"{told}; failed: {', '.join(self.failed)}"

    @property
    def failed(self) -> list[str]:
        """The benchmarks that did not come to their end."""
        return [name for name, rows in self.rows.items() if any(isinstance(row, Failure) for row in rows)]

    def _clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=self.progress, flush=True)
            self._shown = False


def _columns(texts: tuple[str, str, str, str]) -> list[str]:
    columns = (
        wrap(texts[0], WHAT - 2, subsequent_indent=GAP),
        [f"{texts[1]:>{MEASURED}}"],
        [texts[2]],
        wrap(texts[3], PEERS),
    )
    found = []
    for what, measured, target, peers in zip_longest(*columns, fillvalue=""):
        found.append(f"{GAP}{what:{WHAT - 2}}{GAP}{measured:{MEASURED}}{GAP}{target:{TARGET}}{GAP}{peers}".rstrip())
    return found


def _width() -> int:
    return WHAT + MEASURED + TARGET + PEERS + 3 * len(GAP)
