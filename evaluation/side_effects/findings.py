"""What an audit found: one number of one model by one instrument, beside the same number of its teacher.

A student may give away what its teacher would not, prefer what its teacher did not prefer, or lose what its teacher
refused. None of that is in the number that a student is chosen by, so each is measured by itself, by several
instruments that are never added up, and always held against the teacher: what a student has in common with its teacher
was not made by distilling it.

An audit that could not measure something says why (`Finding.unknown`): silence would read as "nothing was found".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.statistics.differences import Estimate
from evaluation.statistics.intervals import Interval

EVERY_STUDENT = "every student"
"""Stands in place of a model for all students, where something is known, or not, of what they are and not of one."""

NOT_MEASURED = Estimate(math.nan, Interval(math.nan, math.nan, "none", math.nan), 0)
"""The value of a finding that says why there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One number of one model.

    `audit` is the kind of audit ("privacy", "bias", "refusals") and `instrument` what it measured with, unique within
    an audit and a model. `model` is the row of the comparison, `method` the objectives of its stages ("seqkd, minillm";
    empty of a model that was not trained here). `teacher` and `untouched` are the same number of the teacher and of the
    model that this one began as, `difference` is value - teacher, with the interval of the paired difference where both
    met the same rows. `unit` is an `evaluation.metric.Metric.unit`. `meaning` says in one sentence how to read the
    number and what it would be if nothing were there. `unknown` says why there is no number: then `value` is
    `NOT_MEASURED`.
    """

    audit: str
    instrument: str
    model: str
    method: str
    value: Estimate
    teacher: Estimate | None
    untouched: Estimate | None
    difference: Estimate | None
    unit: str
    meaning: str
    unknown: str | None

    @property
    def apart(self) -> bool:
        """Whether all of the interval of the difference to its teacher lies on one side of nothing."""
        if self.difference is None:
            return False
        interval = self.difference.interval
        return interval.low > 0.0 or interval.high < 0.0


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two students of a run, of other methods, by one instrument on the same rows.

    `value` is that of the first, `other` of the second, and `difference` is value - other, paired over the rows.
    `method` and `other_method` are the objectives of their stages.
    """

    instrument: str
    model: str
    method: str
    other_model: str
    other_method: str
    value: Estimate
    other: Estimate
    difference: Estimate
    unit: str

    @property
    def apart(self) -> bool:
        """Whether all of the interval of the difference lies on one side of nothing."""
        return self.difference.interval.low > 0.0 or self.difference.interval.high < 0.0


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything that one audit of one run found.

    `rests_on` names by digest what it was made from: weights of every model, rows of data, and settings. `notes` are
    what a reader of the findings has to know beside them. `contrasts` hold students against each other.
    """

    audit: str
    rests_on: Mapping[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    contrasts: tuple[Contrast, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would be read wrongly: a number that is none without a reason, or two of one name."""
        for each in self.findings:
            if each.audit != self.audit:
                raise ValueError(f"{each.instrument} of {each.model} is of the audit {each.audit}, not {self.audit}")
            if each.unknown is None and math.isnan(each.value.value):
                raise ValueError(f"{each.instrument} of {each.model} has neither a number nor a reason for having none")
        names = [(each.instrument, each.model) for each in self.findings]
        if len(set(names)) < len(names):
            raise ValueError("two findings are of one instrument and one model")

    @property
    def in_words(self) -> str:
        """How many numbers there are, and which students they set apart from their teacher."""
        apart = Counter(each.model for each in self.findings if each.apart)
        unknown = sum(each.unknown is not None for each in self.findings)
        known = len(self.findings) - unknown
        whose = ", ".join(f"{count} of {model}" for model, count in apart.items())
        said = f"{known} numbers, apart from the teacher's: {whose or 'none'}" if known else "nothing was measured"
        if self.contrasts:
            differ = sum(each.apart for each in self.contrasts)
            said += f"; between students {differ} of {len(self.contrasts)} differ"
        return f"{said}; {unknown} not known" if unknown else said


@dataclass(frozen=True, slots=True)
class Audited:
    """The audits that were made of one run, by their names; `unreadable` has a line for each that cannot be used."""

    audits: Mapping[str, Audit]
    unreadable: tuple[str, ...] = ()


NOT_AUDITED = Audited({})
"""Of a run that nobody audited."""


def unknown(*, audit: str, instrument: str, model: str, method: str, unit: str, meaning: str, why: str) -> Finding:
    """What could not be measured of a model, and why."""
    return Finding(audit, instrument, model, method, NOT_MEASURED, None, None, None, unit, meaning, why)
