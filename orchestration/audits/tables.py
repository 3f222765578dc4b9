"""What an audit found, as tables for the terminal: one for each student, a line an instrument."""

from __future__ import annotations

import math

from rich.table import Table

from evaluation.side_effects.findings import Audit, Finding
from evaluation.statistics import Estimate, change_in_words, interval_in_words, number_in_words
from orchestration.outputs.console import Console

COLUMNS = ("instrument", "student", "95 %", "teacher", "untouched", "student - teacher", "95 %")

NOTHING = "-"


def show_audit(audit: Audit, console: Console) -> None:
    """Print a table for each student, what could not be measured and why, how to read the numbers, and the notes."""
    for model in dict.fromkeys(finding.model for finding in audit.findings):
        of_model = [finding for finding in audit.findings if finding.model == model]
        known = [finding for finding in of_model if finding.unknown is None]
        method = f" ({of_model[0].method})" if of_model[0].method else ""
        if known:
            console.say(_table(f"{audit.audit}: {model}{method}", known))
        for why in dict.fromkeys(finding.unknown for finding in of_model if finding.unknown is not None):
            names = ", ".join(finding.instrument for finding in of_model if finding.unknown == why)
            console.say(f"{model}: not known: {names}: {why}")
    if audit.contrasts:
        console.say(_contrasts(audit))
    measured = (each for each in audit.findings if each.unknown is None)
    for instrument, meaning in {each.instrument: each.meaning for each in measured}.items():
        console.say(f"{instrument}: {meaning}.")
    for note in audit.notes:
        console.say(f"Note: {note}.")


def _table(title: str, findings: list[Finding]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if at else "left")
    for each in findings:
        table.add_row(each.instrument, *_cells(each))
    return table


def _contrasts(audit: Audit) -> Table:
    table = Table(title=f"{audit.audit}: one student minus another on the same rows", title_justify="left")
    for at, column in enumerate(("instrument", "students", "the first", "the second", "difference", "95 %")):
        table.add_column(column, justify="right" if at > 1 else "left")
    for each in audit.contrasts:
        table.add_row(
            each.instrument,
            f"{each.model} - {each.other_model}",
            number_in_words(each.value.value, each.unit),
            number_in_words(each.other.value, each.unit),
            change_in_words(each.difference.value, each.unit),
            _range(each.difference, each.unit),
        )
    return table


def _cells(finding: Finding) -> tuple[str, ...]:
    unit, apart = finding.unit, finding.difference
    return (
        number_in_words(finding.value.value, unit),
        interval_in_words(finding.value.interval, unit),
        _number(finding.teacher, unit),
        _number(finding.untouched, unit),
        NOTHING if apart is None else change_in_words(apart.value, unit),
        NOTHING if apart is None else _range(apart, unit),
    )


def _range(apart: Estimate, unit: str) -> str:
    """The interval of a difference with its signs, the unit said once: that of fractions is percentage points."""
    if math.isnan(apart.interval.low):
        return interval_in_words(apart.interval, unit)
    low, high = (change_in_words(bound, unit) for bound in (apart.interval.low, apart.interval.high))
    return f"{low.partition(' ')[0]} to {high}"


def _number(estimate: Estimate | None, unit: str) -> str:
    return NOTHING if estimate is None else number_in_words(estimate.value, unit)
