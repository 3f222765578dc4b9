"""Benchmarks of the tests: one that says what it should among much else, and three that do not come to their end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measurement import Measurement, Row, at_least, at_most
from benchmarks.turns import Turn

NOISE = "noise-of-a-library"


def bench_noisy() -> Iterator[Row]:
    """Rows among what libraries print: by Python, by C, by processes, as warnings and as progress."""
    sys.stdout.write(NOISE)
    sys.stderr.write(NOISE)
    warnings.warn(NOISE, stacklevel=1)
    os.write(1, NOISE.encode())
    os.write(2, f"\r{NOISE}".encode())
    yield at_least("speed", 2.0, 1.0, unit="rows/s", peers={"the other": 1.0})
    subprocess.run([sys.executable, "-c", f"print({NOISE!r})"], check=True)
    yield "a remark"
    yield at_most("memory", 3.0, 1.0, unit="MiB", digits=0)
    yield Measurement("plain", 4.0)


def bench_raising() -> Iterator[Row]:
    """One row, then an error."""
    yield Measurement("before", 1.0)
    raise ValueError("the disk is full")


def bench_dying() -> Iterator[Row]:
    """One row, then the end of the process, without a word of Python's."""
    yield Measurement("before", 1.0)
    os.write(2, b"last words\n")
    os._exit(3)


def bench_hanging(folder: str) -> Iterator[Row]:
    """One row, then nothing for a minute; then the number of a process that it has started lies in `folder`."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield Measurement("before", 1.0)
    (Path(folder) / "started").write_text(str(sleeper.pid), encoding="utf-8")
    (Path(folder) / "started").replace(Path(folder) / "pid")
    time.sleep(60)


def contend(turn: Turn, *, work: float = 0.0, at_most: int = 1000) -> None:
    """Steps that keep a processor busy for so long; an error at the one after `at_most`."""
    for number in range(1000):
        turn.begin()
        if number == at_most:
            raise ValueError("out of batches\nand more")
        until = time.process_time() + work
        while time.process_time() < until:
            pass
        turn.end()


def contend_and_die(turn: Turn) -> None:
    """The process ends in the midst of a step."""
    turn.begin()
    os._exit(4)
