"""From what was measured of a student, its teacher and its start on the same rows to one finding.

A number of a student alone says little: training rows may be easier than held-out ones for everybody, and a teacher may
prefer what its student prefers. So the difference to the teacher is taken row by row, which takes out how hard a row
is, and has an interval of its own (`evaluation.statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.metric import Measured
from evaluation.side_effects.findings import Contrast, Finding, unknown
from evaluation.statistics import Estimate, Resampling, estimate
from evaluation.statistics.intervals import Interval, difference_interval, never_seen_in
from evaluation.statistics.resampling import bootstrap_values

DRAWS = Resampling(draws=2_000)
"""An audit measures dozens of numbers, and with so many draws their bounds are steady to a tenth of a width."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One way to look: what it is called within its audit, and in one sentence how to read what it finds."""

    audit: str
    name: str
    unit: str
    meaning: str

    def unknown(self, model: str, *, method: str, why: str) -> Finding:
        """What it could not find of a model, and why."""
        return unknown(
            audit=self.audit,
            instrument=self.name,
            model=model,
            method=method,
            unit=self.unit,
            meaning=self.meaning,
            why=why,
        )


def found(
    instrument: Instrument,
    student: Measured,
    *,
    model: str,
    method: str,
    teacher: Measured | None = None,
    untouched: Measured | None = None,
    how: Resampling = DRAWS,
) -> Finding:
    """The student's number beside those of its teacher and its start, all three on the same rows.

    Where the number is undefined on these rows that is what the finding says.

    Raises:
        ValueError: the teacher was measured on other rows.
    """
    if math.isnan(student.value):
        return instrument.unknown(model, method=method, why=f"it is undefined on these {len(student.sums)} rows")
    return Finding(
        audit=instrument.audit,
        instrument=instrument.name,
        model=model,
        method=method,
        value=estimate(student, how),
        teacher=None if teacher is None else estimate(teacher, how),
        untouched=None if untouched is None else estimate(untouched, how),
        difference=None if teacher is None else paired_difference(teacher, student, how),
        unit=instrument.unit,
        meaning=instrument.meaning,
        unknown=None,
    )


def found_beside(instrument: Instrument, measured: Mapping[str, Measured], *, model: str, method: str) -> Finding:
    """The same of whoever was measured, by "student", and "teacher" and "untouched" where they were."""
    return found(
        instrument,
        measured["student"],
        model=model,
        method=method,
        teacher=measured.get("teacher"),
        untouched=measured.get("untouched"),
    )


def contrast(
    instrument: Instrument,
    one: Measured,
    other: Measured,
    *,
    models: tuple[str, str],
    methods: tuple[str, str],
    how: Resampling = DRAWS,
) -> Contrast | None:
    """One student minus another on the same rows; None where either number is undefined on them.

    Raises:
        ValueError: they were measured on different numbers of rows.
    """
    if math.isnan(one.value) or math.isnan(other.value):
        return None
    return Contrast(
        instrument=instrument.name,
        model=models[0],
        method=methods[0],
        other_model=models[1],
        other_method=methods[1],
        value=estimate(one, how),
        other=estimate(other, how),
        difference=paired_difference(other, one, how),
        unit=instrument.unit,
    )


def paired_difference(baseline: Measured, model: Measured, how: Resampling = DRAWS) -> Estimate:
    """Model - baseline over the rows that both met, with the interval of the paired difference.

    Where the two fractions are equal in every draw, their rates may still differ by as much as a rate that was never
    seen may be.

    Raises:
        ValueError: the two were measured on different numbers of rows.
    """
    n = len(model.sums)
    if len(baseline.sums) != n:
        raise ValueError(f"{n} rows cannot be compared, in pairs, with {len(baseline.sums)}")
    values = bootstrap_values([baseline, model], how)
    draws = values[:, 1] - values[:, 0]
    interval = difference_interval(draws, n)
    if model.metric.unit == "fraction" and bool(np.all(draws == 0.0)):
        reach = never_seen_in(n)
        interval = Interval(-reach, reach, "exact", 0.0)
    return Estimate(model.value - baseline.value, interval, n)
