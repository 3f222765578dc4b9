"""What an audit is told: by the configuration of the run that it ends, or by whoever makes it by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from configs.audit import AUDITED_ROWS, AskedAudits, TaskAudits
from configs.models import Device


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """At most so many `rows` of each kind are asked about, on this device; `pairs` are files of pairs of sentences.

    `groups` are fields of the test rows of a task whose values are groups.
    """

    device: Device = "cpu"
    rows: int = AUDITED_ROWS
    pairs: tuple[Path, ...] = ()
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: AskedAudits | None, *, device: Device) -> Self:
        """Those of a configuration whose paths are real."""
        if asked is None:
            return cls(device)
        return cls(device, asked.rows, asked.pairs, asked.groups if isinstance(asked, TaskAudits) else ())
