"""The trials of a sweep and what they gave, in a file that a kill cannot spoil.

A line is written when a trial begins and when it ends. The next start takes over what was finished, goes on with what
was under way, and tries once more what had failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from configs.regular_files import UnreadableFileError, open_own, open_regular, parse_json
from orchestration.outputs.fields import from_fields
from orchestration.sweeps.space import Values


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an experiment of the sweep. `failure` is "" unless it failed, in `seconds` it ran.

    `dev` holds the held-out metrics of the step that became the student, by their tracking names; of several students
    the mean. `parameters` are those of all its students; `start_seconds` is what its stages waited for their workers.
    """

    failure: str
    dev: Mapping[str, float]
    parameters: int
    seconds: float
    start_seconds: float
    teacher_tokens: int
    directory: str

    @classmethod
    def failed(cls, reason: str, *, seconds: float) -> Outcome:
        """What comes of one that failed."""
        return cls(reason, {}, 0, seconds, 0.0, 0, "")


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of values; `outcome` is None while it is under way."""

    number: int
    values: Values
    outcome: Outcome | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self.outcome is not None and bool(self.outcome.failure)

    def score(self, metric: str) -> float | None:
        """What it is judged by; None while there is nothing to judge."""
        if self.outcome is None or self.failed:
            return None
        return self.outcome.dev.get(metric)


class TrialLog:
    """The trials of one sweep, by number, as its directory keeps them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trials: dict[int, Trial] = {}
        for line in self._lines():
            trial = _trial(line, origin=str(path))
            if trial is not None:
                self.trials[trial.number] = trial

    def write(self, trial: Trial) -> None:
        """Keep a trial, on stable storage; a later line of the same number counts."""
        self.trials[trial.number] = trial
        outcome = None if trial.outcome is None else asdict(trial.outcome)
        line = json.dumps({"number": trial.number, "values": dict(trial.values), "outcome": outcome}) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_own(self._path, flags=os.O_APPEND), "ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def _lines(self) -> list[bytes]:
        """The whole lines; one that a kill cut short is closed, so that the next begins on a line of its own."""
        try:
            with open_regular(self._path) as stream:
                text = stream.read()
        except FileNotFoundError:
            return []
        if text and not text.endswith(b"\n"):
            with os.fdopen(open_own(self._path, flags=os.O_APPEND), "ab") as stream:
                stream.write(b"\n")
        return text.split(b"\n")


def _trial(line: bytes, *, origin: str) -> Trial | None:
    """A line of the file; None for what is not one."""
    try:
        raw: Any = parse_json(line, origin=origin)
        values: dict[str, JsonValue] = dict(raw["values"])
        outcome = None if raw["outcome"] is None else from_fields(Outcome, raw["outcome"])
        return Trial(int(raw["number"]), values, outcome)
    except (UnreadableFileError, AttributeError, KeyError, TypeError, ValueError):
        return None
