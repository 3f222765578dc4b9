"""How rows look: in columns that all share, whatever is long, and with a sum at the end."""

from __future__ import annotations

import io
import time

from benchmarks.measurement import Failure, Measurement, at_least, at_most
from benchmarks.table import GAP, MEASURED, TARGET, WHAT, Table, lines, number


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_begin_at_the_same_places_in_every_row() -> None:
    long = "what is measured, in so many words that they find no room in one line of the first column"
    rows = [at_least("speed", 12345.6, 1000.0, unit="rows/s", digits=0, peers={"a": 1.0}), at_most(long, 0.1, 1.0)]
    target = WHAT + MEASURED + 2 * len(GAP)
    first, second = (lines(row) for row in rows)
    assert len(first) == 1 and len(second) == 2
    for line in (first[0], second[0]):
        assert line[target:].startswith("at ")
        assert line[WHAT : target - len(GAP)].rstrip() != ""
        assert line[target - len(GAP) - 1] != " " and line[target - len(GAP) : target] == GAP
    assert first[0][target:][:TARGET].rstrip() == "at least 1,000: met"
    assert " ".join(first[0].split()) == "speed 12,346 rows/s at least 1,000: met a 1"
    assert " ".join(" ".join(line[:WHAT] for line in second).split()) == long


def test_what_is_missed_stands_out() -> None:
    assert "at most 1: MISSED" in lines(at_most("memory", 2.0, 1.0))[0]


def test_a_small_value_is_not_shown_as_zero() -> None:
    assert number(0.0000042, digits=2) == "4.2e-06"
    assert number(0.0, digits=2) == "0.00"
    assert number(0.01, digits=2) == "0.01"


def test_the_end_counts_targets_and_names_what_failed() -> None:
    out = io.StringIO()
    table = Table(out=out, progress=io.StringIO())
    table.group("first")
    for row in (at_least("a", 1.0, 1.0), at_least("b", 0.5, 1.0), at_most("c", 0.5, 1.0), Measurement("d", 1.0), "e"):
        table.add(row)
    table.group("second")
    table.add(Failure("ValueError: no", "/logs/second.log"))
    table.end()
    assert out.getvalue().splitlines()[-1] == "targets: 2 met, 1 missed; failed: second"
    assert "  FAILED: ValueError: no (log: /logs/second.log)" in out.getvalue()


def test_progress_is_written_over_before_a_row_comes() -> None:
    both = Terminal()
    table = Table(out=both, progress=both)
    table.group("first")
    table.running("first (1 of 1)", since=time.monotonic() - 5)
    table.add(Measurement("a", 1.0))
    shown, _, rest = both.getvalue().partition("first (1 of 1), 5 s")
    assert shown.endswith("\r\x1b[K")
    assert rest.startswith("\r\x1b[K  a ")


def test_where_nobody_looks_progress_is_one_line_a_benchmark() -> None:
    progress = io.StringIO()
    table = Table(out=io.StringIO(), progress=progress)
    for seconds in (0, 1, 2, 3):
        table.running("first (1 of 1)", since=time.monotonic() - seconds)
    assert progress.getvalue() == "first (1 of 1)\n"
