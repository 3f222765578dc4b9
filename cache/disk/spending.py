"""What it took to ask a teacher for the rows of a segment, as its manifest keeps it.

It stands in the provenance, so no key depends on it and every reader of the format understands it. Manifests that were
written before anybody counted do not say; neither do those of rows that no teacher was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Self

PREFIX = "spent_"
"""Begins the names of these numbers among a manifest's provenance."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Time of an engine, the same times its GPUs, and energy of the machine while it worked; NaN: not known."""

    seconds: float = math.nan
    gpu_seconds: float = math.nan
    joules: float = math.nan

    @classmethod
    def of(cls, provenance: Mapping[str, str]) -> Self:
        """What a manifest says; a number that is not one counts as not known."""
        return cls(*(_number(provenance.get(PREFIX + name)) for name in asdict(cls())))

    def provenance(self) -> dict[str, str]:
        """As texts for a manifest; what is not known is left out."""
        return {PREFIX + name: f"{value:.6g}" for name, value in asdict(self).items() if math.isfinite(value)}

    def share(self, part: int, *, of: int) -> Spent:
        """What `part` of so many tokens took of it."""
        return Spent(*(value * part / of if of else math.nan for value in asdict(self).values()))


def together(spent: Iterable[Spent]) -> Spent:
    """The sum, over those that know: of nothing, or of none that knows, it is not known."""
    columns = zip(*(asdict(each).values() for each in spent), strict=True)
    sums = [math.fsum(known) if (known := [v for v in column if math.isfinite(v)]) else math.nan for column in columns]
    return Spent(*sums) if sums else Spent()


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if value >= 0.0 and math.isfinite(value) else math.nan
