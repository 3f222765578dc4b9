"""What a guard has said, kept below the run root: by the hash of what it was asked, and without any text.

A lot of verdicts is one file, which is there whole or not at all: a killed run has lost at most the lot that was under
way, and a second run asks nothing again. Whoever can guess a text whole can find it by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from cache.disk.durable import replace_file
from configs.regular_files import JSON_BYTES, UnreadableFileError, parse_json, read_regular

ENDING = ".json"


def name_of(token_ids: Sequence[int]) -> str:
    """What a question is known by."""
    return sha256(np.asarray(token_ids, dtype=np.int64).tobytes()).hexdigest()


class GuardVerdicts:
    """The verdicts of one guard, asked in one way, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; a file that cannot be read counts as not there."""
        self._folder = folder
        self._said: dict[str, float | None] = {}
        for path in sorted(folder.glob(f"*{ENDING}")):
            self._said |= _read(path)

    def __contains__(self, question: str) -> bool:
        return question in self._said

    def of(self, question: str) -> float | None:
        """How likely the guard means unsafe; None where it meant neither."""
        return self._said[question]

    def keep(self, said: Mapping[str, float | None]) -> None:
        """Keep a lot of verdicts, all of them or none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._folder / f"{uuid4().hex}{ENDING}", json.dumps(said).encode())
        self._said |= said


def _read(path: Path) -> dict[str, float | None]:
    try:
        said: Any = parse_json(read_regular(path, at_most=JSON_BYTES), origin=str(path))
    except (OSError, UnreadableFileError, ValueError):
        return {}
    if not isinstance(said, dict) or not all(each is None or isinstance(each, int | float) for each in said.values()):
        return {}
    return said
