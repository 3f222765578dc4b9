"""What to know of the students of a run before one of them is given to others: duties, audits, energy, unknowns.

Nothing here is summed up: an instrument that finds a leak is not outvoted by three that find none. What was not looked
at is named beside what was, since a page that is silent about it reads as if nothing had been found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from configs.audit import AUDITS
from configs.teachers import is_stated
from evaluation.report.blocks import Block, Cell, Column, Folded, Lines, Paragraph, Row, Section, Table
from evaluation.report.numbers import written
from evaluation.results import RunResults
from evaluation.side_effects.findings import Audit, Audited, Contrast, Finding
from evaluation.statistics import Estimate
from evaluation.statistics.wording import change_in_words, interval_in_words, number_in_words

TITLE = "What to know before you ship it"

SAYS = (
    "Whose terms bind a student, what it gives away, prefers or has lost beside its teacher, and what it took. Each "
    "number is of one instrument, and none of them says that nothing is wrong."
)

NO_DIFFERENCE = "Nothing that was measured sets a student apart from its teacher."

NONE = "-"
"""Stands in a cell where there is nothing to hold a number against."""


def before_shipping(names: Sequence[str], runs: Sequence[RunResults], audited: Sequence[Audited]) -> Section:
    """The section over all runs of a page; `names` and `audited` are of the same runs, in the same order."""
    blocks: list[Block] = [Paragraph(SAYS)]
    for name, run, found in zip(names, runs, audited, strict=True):
        of = f" ({name})" if len(runs) > 1 else ""
        blocks.append(Lines(f"Licence{of}", tuple(_licence(run))))
        blocks += _audits(found, of=of)
        blocks.append(Lines(f"Energy{of}", tuple(_energy(run))))
        if unknown := tuple(_unknown(run, found)):
            blocks.append(Lines(f"Not known{of}", unknown))
    return Section("shipping", TITLE, tuple(blocks))


def _licence(run: RunResults) -> Iterator[str]:
    provenance = run.provenance
    if provenance.licence_terms:
        yield from provenance.licence_terms
    elif is_stated(provenance.teacher_licence):
        asks = "asks nothing of what learned from its answers alone"
        yield f"{provenance.teacher} is under {provenance.teacher_licence}, which {asks}."
    if not is_stated(provenance.teacher_licence):
        yield (
            f"No licence is known of {provenance.teacher}: find out whether its answers may train a model before one "
            "is shipped."
        )
    yield "distill export --to FOLDER fulfils what files can fulfil, and is refused while something else is open."


def _audits(found: Audited, *, of: str) -> Iterator[Block]:
    audits = [found.audits[name] for name in AUDITS if name in found.audits]
    if not audits:
        return
    lines = [_beside_teacher(finding) for audit in audits for finding in audit.findings if finding.apart]
    yield Lines(f"Where a student differs from its teacher{of}", tuple(lines or [NO_DIFFERENCE]))
    contrasts = [each for audit in audits for each in audit.contrasts]
    if contrasts:
        yield Lines(f"Method by method{of}", tuple(_said_of_pairs(contrasts)))
    for audit in audits:
        # Dozens of rows: what stands out is said above, and what is not known below.
        if numbers := (*_table(audit), *_table_of_methods(audit)):
            how = Lines("How to read it", tuple(_meanings(audit)))
            notes = (Lines("To know", audit.notes),) if audit.notes else ()
            yield Folded(f"{audit.audit.capitalize()}{of}: every number, and how to read it", (*numbers, how, *notes))


def _table(audit: Audit) -> Iterator[Table]:
    rows = tuple(
        Row(
            finding.model,
            (
                Cell(finding.instrument),
                _cell(finding.value, finding.unit),
                _cell(finding.teacher, finding.unit),
                _cell(finding.untouched, finding.unit),
                _change(finding.difference, finding.unit),
            ),
            note=finding.method,
        )
        for finding in audit.findings
        if finding.unknown is None
    )
    columns = (
        Column("measured by", numeric=False),
        Column("it"),
        Column("its teacher"),
        Column("untouched"),
        Column("it - its teacher", "95 %"),
    )
    if rows:
        yield Table(f"{audit.audit.capitalize()}, each student beside its teacher", "model", columns, rows)


def _table_of_methods(audit: Audit) -> Iterator[Table]:
    """Students against each other, method by method."""
    rows = tuple(
        Row(
            f"{each.model} - {each.other_model}",
            (
                Cell(each.instrument),
                _cell(each.value, each.unit),
                _cell(each.other, each.unit),
                _change(each.difference, each.unit),
            ),
            note=f"{each.method} - {each.other_method}",
        )
        for each in audit.contrasts
    )
    columns = (
        Column("measured by", numeric=False),
        Column("the first"),
        Column("the second"),
        Column("difference", "95 %"),
    )
    if rows:
        what = "one student minus another on rows that both have learned, and on the same prompts"
        yield Table(f"{audit.audit.capitalize()}, {what}", "students", columns, rows)


def _said_of_pairs(contrasts: Sequence[Contrast]) -> Iterator[str]:
    pairs: dict[tuple[str, str], list[Contrast]] = {}
    for each in contrasts:
        pairs.setdefault((each.model, each.other_model), []).append(each)
    for (one, other), every in pairs.items():
        apart = [each for each in every if each.apart]
        if not apart:
            yield f"{one} beside {other}: not told apart by any of {len(every)} numbers."
            continue
        said = "; ".join(
            f"{each.instrument} {change.text} ({change.note})"
            for each in apart
            for change in [_change(each.difference, each.unit)]
        )
        yield f"{one} - {other}: {len(apart)} of {len(every)} numbers differ: {said}."


def _cell(estimate: Estimate | None, unit: str) -> Cell:
    if estimate is None or math.isnan(estimate.value):
        return Cell(NONE)
    return Cell(number_in_words(estimate.value, unit), interval_in_words(estimate.interval, unit))


def _change(estimate: Estimate | None, unit: str) -> Cell:
    if estimate is None or math.isnan(estimate.value):
        return Cell(NONE)
    low, high = (change_in_words(bound, unit) for bound in (estimate.interval.low, estimate.interval.high))
    between = "" if math.isnan(estimate.interval.low) else f"{low.removesuffix(' pp')} to {high}"
    return Cell(change_in_words(estimate.value, unit), between)


def _beside_teacher(finding: Finding) -> str:
    assert finding.difference is not None
    change = _change(finding.difference, finding.unit)
    beside = f", its teacher {_cell(finding.teacher, finding.unit).text}" if finding.teacher is not None else ""
    return (
        f"{finding.model}, {finding.instrument}: {number_in_words(finding.value.value, finding.unit)}{beside}, "
        f"{change.text} ({change.note})"
    )


def _meanings(audit: Audit) -> Iterator[str]:
    yield from dict.fromkeys(f"{finding.instrument}: {finding.meaning}" for finding in audit.findings)


def _energy(run: RunResults) -> Iterator[str]:
    joules = [stage.joules for stage in run.cost.stages if not math.isnan(stage.joules)]
    if joules:
        yield f"This run took {written(sum(joules), 'joules')} ({run.cost.energy_source})."
    if run.cost.saved_tokens:
        saved = written(run.cost.saved_joules, "joules")
        yield f"What the cache held already would have taken {saved} more."
    for model in run.models:
        if model.training is not None and not math.isnan(model.training.joules):
            yield f"{model.name}: {written(model.training.joules, 'joules')} to train, when it was made."
    if not joules:
        yield "Nothing is known."


def _unknown(run: RunResults, found: Audited) -> Iterator[str]:
    for name in AUDITS:
        audit = found.audits.get(name)
        if audit is not None:
            yield from (
                f"{finding.model}, {finding.instrument}: {finding.unknown}"
                for finding in audit.findings
                if finding.unknown is not None
            )
        elif not any(f"{name}.json" in line for line in found.unreadable):
            yield f"{name}: was not looked at. distill audit {name} RUN does, and distill report RUN then shows it."
    yield from found.unreadable
    if not any(key.startswith("privacy.") for key in run.settings):
        yield "personal data and secrets: nobody looked for them in data or answers (the block privacy does)."
    if not any(not math.isnan(stage.joules) for stage in run.cost.stages):
        yield "energy: nothing here could measure it."
    yield from (
        f"licence of the data of {task.name}: the task does not state it." for task in run.tasks if task.licence is None
    )
