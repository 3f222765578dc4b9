"""When what ran of a run, and on what: spans in a file of the run directory, over all starts of it.

A line is added when something ends, so a start that is killed leaves what had ended by then. A line that cannot be
read, torn by a kill or of another version, is left out: nothing is decided by this file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from configs.regular_files import UnreadableFileError, open_own, open_regular, parse_json
from evaluation.results import PLACES, Place, Span

SCHEMA = "stillroom/timeline/1"
FILE = "timeline.jsonl"
LINE_BYTES = 4096
MOST_SPANS = 10_000
"""Of a run; what comes later is not noted. A run of a hundred students has some hundreds."""

logger = logging.getLogger(__name__)


class Timeline:
    """Notes spans, from any thread. Without a file they are kept as long as this lives."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._spans = [] if path is None else _read(path)
        self._start = 1 + max((span.start for span in self._spans), default=-1)

    @classmethod
    def of(cls, directory: Path) -> Timeline:
        """That of a run directory; what is noted from now on is of its next start."""
        return cls(directory / FILE)

    @property
    def spans(self) -> tuple[Span, ...]:
        """What was noted, in this start and those before, in the order of the beginnings."""
        with self._lock:
            return tuple(sorted(self._spans, key=lambda span: (span.start, span.began, span.ended)))

    @contextmanager
    def span(self, title: str, *, place: Place) -> Iterator[None]:
        """Note how long the body takes; also of one that fails, which others may have waited for."""
        began, since = time.time(), time.monotonic()
        try:
            yield
        finally:
            # The clock of the wall may be set meanwhile, the other one not.
            self.note(title, place=place, began=began, ended=began + time.monotonic() - since)

    def noting(self, title: str, *, place: Place) -> Callable[[float, float], None]:
        """For whoever knows when something began and ended, and not what it is called."""
        return lambda began, ended: self.note(title, place=place, began=began, ended=ended)

    def note(self, title: str, *, place: Place, began: float, ended: float) -> None:
        """Note what is over; times are seconds since 1970."""
        span = Span(title, place, self._start, round(began, 3), round(ended, 3))
        with self._lock:
            if len(self._spans) >= MOST_SPANS:
                return
            self._spans.append(span)
            if self._path is None:
                return
            line = json.dumps({"schema": SCHEMA, **asdict(span)}) + "\n"
            try:
                with os.fdopen(open_own(self._path, flags=os.O_APPEND), "ab") as stream:
                    # A line that a kill tore must not take this one with it.
                    stream.write(line.encode() if _ends_whole(self._path) else f"\n{line}".encode())
            except (OSError, UnreadableFileError) as error:
                logger.info("%s cannot be written: %s", self._path, error)


def _ends_whole(path: Path) -> bool:
    with open_regular(path) as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return True
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _read(path: Path) -> list[Span]:
    spans: list[Span] = []
    try:
        with open_regular(path) as stream:
            while len(spans) < MOST_SPANS and (line := stream.readline(LINE_BYTES)):
                span = _span(line)
                if span is not None:
                    spans.append(span)
    except (OSError, UnreadableFileError):
        return spans
    return spans


def _span(line: bytes) -> Span | None:
    try:
        fields = parse_json(line, origin=FILE)
    except UnreadableFileError:
        return None
    if not isinstance(fields, dict) or fields.pop("schema", None) != SCHEMA:
        return None
    title, place, start = fields.get("title"), fields.get("place"), fields.get("start")
    began, ended = fields.get("began"), fields.get("ended")
    if not isinstance(title, str) or place not in PLACES or type(start) is not int or start < 0:
        return None
    if not isinstance(began, int | float) or not isinstance(ended, int | float) or not began <= ended:
        return None
    return Span(title, place, start, float(began), float(ended))
