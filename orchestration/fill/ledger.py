"""What an experiment has spent, over all its starts: teacher tokens by purpose, GPU time of engines, and energy.

Every process that spends writes a file of its own below `ledger/` of the run directory: one line of counts that is
written over in place at each answer, so a process that is killed has counted all that it had finished. The sum over
the files is what budgets are compared with, so no process has to report what it spent.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Self
from uuid import uuid4

from configs import CacheError
from configs.regular_files import UnreadableFileError, read_json

LEDGER = "stillroom/ledger/1"
"""The schema of a file. Earlier releases named none and wrote the same counts."""

COUNTS_BYTES = 384
"""Length of a file: written in one piece, so a reader never sees half of a count."""

TICK_S = 5.0
"""How often the GPU time of running engines is written down: what a killed driver forgets at most."""

FORMER_FILE = "teacher-tokens.json"
"""Where earlier releases kept the tokens, in the run directory; it becomes one of the files."""

Computes = Literal["teacher", "student", "group"]
"""Whose time it is: engines of a teacher, engines of students, or a worker group."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """Forward tokens of teachers by purpose, and GPU seconds of engines: GPUs of an engine times its life.

    On CPUs an engine counts as one GPU, so a limit of GPU hours is one of engine hours there. `teacher_gpu_seconds` are
    those of teachers among them; worker groups have theirs apart, in `training_gpu_seconds`. `paid` is the money that
    teachers cost which are paid by the token. `joules` are of everything that the machines of the run did.
    """

    fill: int = 0
    rollout: int = 0
    evaluation: int = 0
    gpu_seconds: float = 0.0
    teacher_gpu_seconds: float = 0.0
    training_gpu_seconds: float = 0.0
    paid: float = 0.0
    joules: float = 0.0

    @property
    def tokens(self) -> int:
        """Teacher tokens of all purposes."""
        return self.fill + self.rollout + self.evaluation

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))


def read_counts(directory: Path) -> Counts:
    """The sum over the files of `directory`; one that cannot be read is named in the log and left out."""
    total = Counts()
    for path in sorted(directory.glob("*.json")):
        try:
            total += _counts(read_json(path, at_most=2 * COUNTS_BYTES))
        except (OSError, UnreadableFileError, ValueError) as error:
            logger.warning("%s does not count towards the budgets: %s", path, error)
    return total


class Meter:
    """The file of one process; made with the first count. Threads may share it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{uuid4().hex}.json"
        self._counts = Counts()
        self._file: int | None = None
        self._lock = threading.Lock()

    def add(self, counts: Counts) -> None:
        """Count what was just spent. It stays counted if the process is killed right afterwards.

        Raises:
            CacheError: it cannot be written down.
        """
        with self._lock:
            self._counts += counts
            line = json.dumps({"schema": LEDGER, **asdict(self._counts)}).ljust(COUNTS_BYTES - 1) + "\n"
            try:
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                os.pwrite(self._file, line.encode(), 0)
            except OSError as error:
                raise CacheError(
                    f"{self._path.parent}: what was spent cannot be written down ({error.strerror}): free space or "
                    "repair the disk, then run again"
                ) from error

    def sync(self) -> None:
        """Put the counts on stable storage, for a power cut."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file)

    def close(self) -> None:
        """Put the counts on stable storage and let go of the file; a later count opens another one."""
        self.sync()
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._path, self._counts, self._file = self._path.with_name(f"{uuid4().hex}.json"), Counts(), None


class Ledger:
    """The ledger as the driver of an experiment sees it: what was spent so far, by all processes of all starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._meter = Meter(directory)
        self._running: dict[int, tuple[Computes, float, float]] = {}
        self._next = 0
        self._joules = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    @classmethod
    def open(cls, run_directory: Path) -> Self:
        """The ledger of a run directory, with what an earlier release counted there."""
        ledger = cls(run_directory / "ledger")
        former = run_directory / FORMER_FILE
        if former.is_file():
            ledger.directory.mkdir(exist_ok=True)
            former.rename(ledger.directory / FORMER_FILE)
        return ledger

    def counts(self) -> Counts:
        """Everything that was spent so far."""
        self._tick()
        return read_counts(self.directory)

    def add(self, *, fill: int = 0, rollout: int = 0, evaluation: int = 0) -> None:
        """Count teacher tokens that were just spent."""
        self._meter.add(Counts(fill, rollout, evaluation))

    def took(self, joules: float) -> None:
        """Count the energy of this start, which is `joules` by now; NaN, where nothing measures, counts nothing."""
        with self._lock:
            more = joules - self._joules
            if not more > 0.0:
                return
            self._joules = joules
        self._meter.add(Counts(joules=more))

    def engines_up(self, gpus: float, *, whose: Computes = "student") -> Callable[[], None]:
        """Count the time of engines on `gpus` GPUs from now on; call what is returned when they have ended."""
        with self._lock:
            name, self._next = self._next, self._next + 1
            self._running[name] = (whose, gpus, time.monotonic())
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._keep_ticking, daemon=True)
                self._ticker.start()

        def down() -> None:
            self._tick()
            with self._lock:
                self._running.pop(name, None)

        return down

    def close(self) -> None:
        """Write down what is still running, and stop."""
        self._ended.set()
        self._tick()
        self._meter.close()

    def metrics(self) -> dict[str, float]:
        """The counts under their names in MLflow."""
        spent = self.counts()
        return {
            "fill/teacher_tokens": float(spent.fill),
            "rollout/teacher_tokens": float(spent.rollout),
            "eval/teacher_tokens": float(spent.evaluation),
            "teacher/forward_tokens": float(spent.tokens),
            "engines/gpu_hours": spent.gpu_seconds / 3600,
            **({"teacher/paid": spent.paid} if spent.paid else {}),
        }

    def _keep_ticking(self) -> None:
        while not self._ended.wait(TICK_S):
            try:
                self._tick()
            except CacheError as error:
                logger.warning("GPU hours: %s", error)

    def _tick(self) -> None:
        with self._lock:
            now = time.monotonic()
            spent = Counter[Computes]()
            for whose, gpus, since in self._running.values():
                spent[whose] += gpus * (now - since)  # type: ignore[assignment]  # a Counter counts in any unit
            self._running = {name: (whose, gpus, now) for name, (whose, gpus, _) in self._running.items()}
        if spent.total():
            teacher = float(spent["teacher"])
            self._meter.add(
                Counts(
                    gpu_seconds=teacher + spent["student"],
                    teacher_gpu_seconds=teacher,
                    training_gpu_seconds=float(spent["group"]),
                )
            )


def _counts(raw: object) -> Counts:
    if not isinstance(raw, dict):
        raise ValueError("it is not a JSON object")
    if (schema := raw.get("schema", LEDGER)) != LEDGER:
        raise ValueError(f"it was written by another version ({schema}, this one has {LEDGER})")
    tokens = {name: raw.get(name, 0) for name in ("fill", "rollout", "evaluation")}
    amounts = ("gpu_seconds", "teacher_gpu_seconds", "training_gpu_seconds", "paid", "joules")
    spent = {name: raw.get(name, 0.0) for name in amounts}
    if any(type(value) is not int or value < 0 for value in tokens.values()):
        raise ValueError(f"tokens are whole numbers from 0, not {list(tokens.values())}")
    for name, value in spent.items():
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise ValueError(f"{name}={value} is not an amount")
    return Counts(*tokens.values(), *map(float, spent.values()))
