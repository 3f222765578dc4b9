"""What an audit is told by whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.models import Device

ROWS = 256
"""Training rows, and as many held-out rows: enough for intervals of some five percentage points to either side."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """At most so many `rows` of each kind are asked about, on this device; `pairs` are files of pairs of sentences."""

    device: Device = "cpu"
    rows: int = ROWS
    pairs: tuple[Path, ...] = ()
