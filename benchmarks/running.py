"""Running benchmarks one after the other, each in a process of its own, so that nothing but their rows is printed."""

from __future__ import annotations

import ast
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measurement import Failure, Measurement, Row
from benchmarks.table import Table
from configs.logs import quiet_environment
from orchestration.outputs.interrupts import stopped_by_signals

FOLDER = Path(__file__).parent
TICK_S = 1.0
"""Between two looks at the clock."""

PATIENCE_S = 60.0
"""How long a benchmark may take to end after its last row, or after it was told to: libraries tidy up."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A generator of rows, by its module and name: what imports it is the process that runs it."""

    name: str
    module: str
    function: str
    about: str = ""
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def found_benchmarks(folder: Path = FOLDER) -> dict[str, Benchmark]:
    """Every `NAME.py` of the folder that defines `bench_NAME`, with the first sentence that it says about itself."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        function = f"bench_{path.stem}"
        if any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body):
            about = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
            found[path.stem] = Benchmark(path.stem, f"{folder.name}.{path.stem}", function, about)
    return found


def run_all(
    benchmarks: Iterable[Benchmark], *, table: Table, seconds: Callable[[], float | None] = lambda: None
) -> None:
    """Run each, and print what it says.

    Args:
        seconds: How long the next one may take; None for as long as it wants.

    Raises:
        KeyboardInterrupt: somebody stopped it, with Ctrl-C or another signal; what was started is ended.
    """
    todo = list(benchmarks)
    # Each has a session of its own, which no signal to this process reaches.
    with _logs() as logs, stopped_by_signals():
        for place, benchmark in enumerate(todo, start=1):
            table.group(benchmark.name)
            what, since, left = f"{benchmark.name} ({place} of {len(todo)})", time.monotonic(), seconds()
            if left is not None and left <= 0:
                table.add(Failure("no time is left"))
                continue
            for row in _rows(benchmark, log=logs / f"{benchmark.name}.log", seconds=left):
                if row is None:
                    table.running(what, since=since)
                else:
                    table.add(row)


@contextmanager
def _logs() -> Iterator[Path]:
    """A new folder for logs, of which those stay that belong to a failure."""
    folder = Path(tempfile.mkdtemp(prefix="stillroom-bench-"))
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _rows(benchmark: Benchmark, *, log: Path, seconds: float | None) -> Iterator[Row | None]:
    """What it says, as it comes; None every second, and a failure at the end if it was one."""
    receiving, sending = os.pipe()
    arguments = [str(sending), benchmark.module, benchmark.function, json.dumps(benchmark.arguments)]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", *arguments],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, pass_fds=[sending], cwd=FOLDER.parent,
            env={**os.environ, **quiet_environment(), **benchmark.environment},
            start_new_session=True,
        )  # fmt: skip
    os.close(sending)
    why = None
    try:
        yield None
        for line in _lines(receiving, until=None if seconds is None else time.monotonic() + seconds):
            if line is None:
                yield None
                continue
            told = json.loads(line)
            if isinstance(told, dict) and "failed" in told:
                why = told["failed"]
            else:
                yield told if isinstance(told, str) else Measurement.from_fields(told)
        code = process.wait(PATIENCE_S)
        if code and why is None:
            why = f"it ended with code {code}: {_last_words(log)}"
    except TimeoutError:
        why = f"it was stopped after {seconds:.0f} s"
    except subprocess.TimeoutExpired:
        why = "it did not end after its last row"
    finally:
        os.close(receiving)
        _end(process)
    if why is None:
        log.unlink()
    else:
        yield Failure(why, str(log))


def _lines(descriptor: int, *, until: float | None) -> Iterator[str | None]:
    """The lines that come, None for each second without any; `TimeoutError` when the time is up."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if until is not None and time.monotonic() > until:
                raise TimeoutError
            if not selector.select(TICK_S):
                yield None
                continue
            if not (part := os.read(descriptor, 65_536)):
                return
            *whole, rest = (rest + part).split(b"\n")
            yield from (line.decode() for line in whole)


def _last_words(log: Path) -> str:
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return words[-1] if words else "without a word"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a benchmark that is still there, in order if it can, with all that it has started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
