"""Which rows an epoch reads where several of them stand for one text and take turns (Beyer et al. 2022, 2106.05237).

A text has copies: answers that a teacher sampled, or changed forms of it. Epoch e reads copy number e mod V of each.
What is read is a pure function of the table and the epoch, so neither a resumed training nor another number of
processes changes it.

Shapes: V turns, R rows that an epoch reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache.batches import Rows
from cache.disk.durable import replace_file
from configs.errors import DataError

FORMAT = "stillroom/turns/1"


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """The rows of each epoch: epoch e reads `rows[e mod V]`."""

    rows: Int32[np.ndarray, "V R"]

    def of(self, epoch: int) -> Rows:
        """The rows that an epoch reads, in the order of their texts."""
        rows: Rows = self.rows[epoch % len(self.rows)].astype(np.int64)
        return rows

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the table."""
        shape = "x".join(map(str, self.rows.shape))
        return hashlib.sha256(f"{FORMAT} {shape} ".encode() + self.rows.astype("<i4").tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the table; a reader sees all of it or nothing.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"rows": np.ascontiguousarray(self.rows, dtype="<i4")}
        replace_file(path, save(arrays, metadata={"format": FORMAT, "digest": self.digest}))

    @classmethod
    def load(cls, path: Path) -> Turns:
        """Read a saved table.

        Raises:
            DataError: there is none, or it is not what was saved.
        """
        try:
            with safe_open(path, framework="numpy") as stored:
                header = stored.metadata() or {}
                found = cls(stored.get_tensor("rows").astype("<i4", copy=False))
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise DataError(f"{path}: no table of turns can be read there ({error}): run the fill again") from error
        if header.get("format") != FORMAT or header.get("digest") != found.digest:
            raise DataError(f"{path}: the table of turns differs from its digest: delete it and run again")
        return found


def take_turns(copies: Sequence[Sequence[int | None]], *, views: int) -> Turns:
    """The table of `views` turns over texts whose copies are these rows; None is a copy that there is not.

    For it stands the next copy of the same text that there is, after the last the first; a text without any is left
    out. What stands for a copy does not depend on other texts.
    """
    each = [[_next(rows, turn) for rows in copies] for turn in range(views)]
    return Turns(np.array([[row for row in turn if row is not None] for turn in each], dtype=np.int32))


def _next(rows: Sequence[int | None], turn: int) -> int | None:
    """The row of this copy, or of the next one."""
    in_order = (rows[(turn + ahead) % len(rows)] for ahead in range(len(rows)))
    return next((row for row in in_order if row is not None), None)
