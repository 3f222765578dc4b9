"""Training curves as a file: one JSON object an optimiser step.

The leader of a worker group writes it, the driver follows it, and it stays with the trained student, so that a later
experiment that reuses the student can show its curves too. A resumed training cuts off the steps it repeats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from cache.disk.durable import replace_file
from configs.regular_files import UnreadableFileError, open_own, open_regular, parse_json
from student_train.job import StepMetrics


class CurveWriter:
    """Writes the curve of one training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False

    def __call__(self, metrics: StepMetrics) -> None:
        """Append one step; the first call drops everything from that step on."""
        if not self._begun:
            kept = [point for point in read_curve(self._path) if point.step < metrics.step]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # In one go: the driver reads the file meanwhile, and a kill must not cost the steps before.
            replace_file(self._path, "".join(_line(point) for point in kept).encode())
            self._begun = True
        with os.fdopen(open_own(self._path, flags=os.O_APPEND), "ab") as stream:
            stream.write(_line(metrics).encode())


class CurveReader:
    """Follows a growing curve; every point is returned once, also when a resumed training writes it again.

    What was read of a file is not read again. A resumed training puts another file in its place, which is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._returned: set[tuple[int, frozenset[str]]] = set()
        self._file: tuple[int, int] | None = None
        self._read = 0

    def new(self) -> list[StepMetrics]:
        """Points that were not returned before. A step may have two: of the training and of the held-out set."""
        try:
            with open_regular(self._path) as stream:
                told = os.fstat(stream.fileno())
                file = told.st_dev, told.st_ino
                if file != self._file or told.st_size < self._read:
                    self._file, self._read = file, 0
                stream.seek(self._read)
                lines = _whole_lines(stream)
        except FileNotFoundError:
            return []
        self._read += sum(map(len, lines))
        found = [point for point in _points(lines, origin=self._path) if _name(point) not in self._returned]
        self._returned |= {_name(point) for point in found}
        return found


def read_curve(path: Path) -> list[StepMetrics]:
    """All whole lines of a curve, in order; one that a kill cut short or a disk damaged is left out."""
    try:
        with open_regular(path) as stream:
            return _points(_whole_lines(stream), origin=path)
    except FileNotFoundError:
        return []


def _whole_lines(stream: BinaryIO) -> list[bytes]:
    return [line for line in stream if line.endswith(b"\n")]


def _points(lines: Iterable[bytes], *, origin: Path) -> list[StepMetrics]:
    points = (_point(line, origin=str(origin)) for line in lines)
    return [point for point in points if point is not None]


def _point(line: bytes, *, origin: str) -> StepMetrics | None:
    try:
        raw: Any = parse_json(line, origin=origin)
        return StepMetrics(int(raw["step"]), {str(name): float(value) for name, value in raw["values"].items()})
    except (UnreadableFileError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _name(metrics: StepMetrics) -> tuple[int, frozenset[str]]:
    return metrics.step, frozenset(metrics.values)


def _line(metrics: StepMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"
