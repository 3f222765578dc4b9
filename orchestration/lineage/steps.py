"""A step of the way back from a student: what was looked at, whether it is as it was written down, and what to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["holds", "broken", "missing", "said"]
"""It is as it was written down; it is not; it cannot be looked at; or it is only told."""

SHOWN = 12
"""Digits of a digest that are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `missing` is not `broken`: of what is no longer here nobody knows whether it has changed."""

    what: str
    state: State
    says: str


def compared(what: str, name: str, *, found: str, wanted: str) -> Step:
    """Whether the digest of a thing is still the one that was written down."""
    if found != wanted:
        return Step(what, "broken", f"{name} does not hold what it held: {found[:SHOWN]}, not {wanted[:SHOWN]}")
    return Step(what, "holds", f"{name}: {found[:SHOWN]}")
