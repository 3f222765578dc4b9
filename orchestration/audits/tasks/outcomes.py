"""How the outcomes of a group of test rows differ from those of the others, from the answers that were compared.

Nobody is asked anything: answers of students, their teacher and what they began as stand in the results of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from configs import DistillError
from evaluation.metric import Measured
from evaluation.results import ModelResults, TaskExample, TaskFacts
from evaluation.side_effects.findings import EVERY_STUDENT, Finding
from evaluation.side_effects.group_gaps import (
    InGroup,
    gap,
    gold_answers,
    label_recall,
    label_share,
    of_group,
    recalls_apart,
    shares_apart,
)
from evaluation.side_effects.paired import Instrument, found
from evaluation.statistics import Estimate, change_in_words
from evaluation.statistics.intervals import Interval, never_seen_in
from evaluation.statistics.power import detectable_difference
from evaluation.tasks.measuring import measure
from orchestration.audits.tasks.finished import AuditedTaskStudent, FinishedTaskRun
from orchestration.audits.tasks.groups import FEWEST_IN_GROUP, Groups, field_rows, groups_of

BIAS = "bias"

MOST_LABELS = 6
"""With more labels these are measured together and not each: dozens of numbers are read by nobody."""

NO_GROUPS = Instrument(BIAS, "outcomes by group", "fraction", "how the outcomes of groups of test rows differ")

NONE_NAMED = (
    "no field of the test rows is named whose values are groups: name one by audit.groups in the configuration, or by "
    "--groups FIELD"
)

NORMAL = 2 * 1.96
"""Standard errors that a 95 % interval is wide."""

Examples = Sequence[TaskExample]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way to look at groups: its name behind that of the group, what it means, and how it is measured."""

    name: str
    meaning: str
    measure: Callable[[Examples], Measured]


def outcome_findings(run: FinishedTaskRun, fields: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """The outcomes of every student by the groups of these fields, and what a reader has to know of the groups."""
    if not fields:
        return [NO_GROUPS.unknown(EVERY_STUDENT, method="", why=NONE_NAMED)], []
    numbers = sorted({example.row for example in run.students[0].row.tasks[0].examples})
    findings: list[Finding] = []
    notes: list[str] = []
    for field in dict.fromkeys(fields):
        try:
            rows = field_rows(run.task.config, folder=run.config.task.parent)
            groups = groups_of(field, rows, numbers=numbers)
        except DistillError as error:
            instrument = replace(NO_GROUPS, name=f"outcomes by {field}")
            findings.append(instrument.unknown(EVERY_STUDENT, method="", why=str(error)))
            continue
        of_field = [each for student in run.students for each in _of_student(student, run, groups)]
        findings += of_field
        notes += _about(groups, of_field, run)
    return findings, notes


def _of_student(student: AuditedTaskStudent, run: FinishedTaskRun, groups: Groups) -> Iterator[Finding]:
    facts = run.results.tasks[0]
    rows = {"student": student.row, "teacher": run.teacher_row, "untouched": run.row(student.row.start)}
    answers = {who: _examples(row, groups) for who, row in rows.items() if row is not None}
    # Whoever did not answer all of these rows cannot stand beside those who did.
    said = {who: each for who, each in answers.items() if {one.row for one in each} == set(groups.rows)}
    for name, count in groups.sizes.items():
        group = groups.members(name)
        for outcome in _of_group(facts, group):
            instrument = _instrument(f"{groups.field}={name}: {outcome.name}", outcome.meaning)
            yield _found(instrument, outcome, said, student=student, rows=count)
    for name, other in groups.pairs:
        group = groups.members(name)
        least = min(group.sum(), (~group).sum())
        for outcome in _apart(facts, group):
            instrument = _instrument(f"{groups.field}={name} against {other}: {outcome.name}", outcome.meaning)
            yield _two_sided(_found(instrument, outcome, said, student=student, rows=int(least)), rows=int(least))


def _found(
    instrument: Instrument, outcome: Outcome, said: Mapping[str, Examples], *, student: AuditedTaskStudent, rows: int
) -> Finding:
    if rows < FEWEST_IN_GROUP:
        why = f"{rows} test rows are of it, or beside it, and it takes {FEWEST_IN_GROUP}: add rows, or join groups"
        return instrument.unknown(student.name, method=student.method, why=why)
    measured = {who: outcome.measure(examples) for who, examples in said.items()}
    return found(
        instrument,
        measured["student"],
        model=student.name,
        method=student.method,
        teacher=measured.get("teacher"),
        untouched=measured.get("untouched"),
    )


def _of_group(facts: TaskFacts, group: InGroup) -> list[Outcome]:
    """What is measured of a group by itself."""
    return [
        Outcome(
            words,
            f"{words} on the test rows of this group, in the answers that were compared",
            lambda examples, name=name: of_group(_measured(facts, examples, name), group),  # type: ignore[misc]
        )
        for name, words in _metrics(facts).items()
    ]


def _apart(facts: TaskFacts, group: InGroup) -> list[Outcome]:
    """What is measured of a group beside the others, as the group minus the others."""
    found = [
        Outcome(
            words,
            f"{words} on the rows of the group minus that on the others: 0 if neither is served better",
            lambda examples, name=name: gap(_measured(facts, examples, name), group),  # type: ignore[misc]
        )
        for name, words in _metrics(facts).items()
    ]
    if facts.kind != "classification":
        return found
    if len(facts.labels) > MOST_LABELS:
        return [*found, *_of_all_labels(facts, group)]
    # Of two labels the share of one says that of the other.
    for label in facts.labels if len(facts.labels) > 2 else facts.labels[:1]:
        found.append(
            Outcome(
                f"share of {label}",
                "how much more often the label is given to the group than to the others (demographic parity): 0 if as "
                "often, and as much as gold labels differ if it is right",
                lambda examples, label=label: gap(label_share(examples, label), group),  # type: ignore[misc]
            )
        )
    for label in facts.labels:
        found.append(
            Outcome(
                f"recall of {label}",
                "of the rows of which the label is right, how many more are found in the group than among the others "
                "(equal opportunity): 0 if as many",
                lambda examples, label=label: gap(label_recall(examples, label), group),  # type: ignore[misc]
            )
        )
    return found


def _of_all_labels(facts: TaskFacts, group: InGroup) -> list[Outcome]:
    chance = "above 0 by chance where labels have few rows, which the teacher's column shows too"
    return [
        Outcome(
            "shares of all labels",
            "the part of the group's answers that would have to be another label to have the shares of the others "
            f"(demographic parity, total variation): {chance}",
            lambda examples: shares_apart(examples, facts.labels, group),
        ),
        Outcome(
            "recalls of all labels",
            "how far the recalls of a label in the group and among the others lie apart, as the root of the mean "
            f"square over the labels (equal opportunity): {chance}",
            lambda examples: recalls_apart(examples, facts.labels, group),
        ),
    ]


def _metrics(facts: TaskFacts) -> dict[str, str]:
    """The metrics of a kind of task that are looked at by group, with their names in words."""
    names = {
        "classification": ["accuracy"],
        "tagging": ["entity_f1", "entity_recall"],
        "extractive_qa": ["f1"],
    }[facts.kind]
    return {name: name.replace("_", " ") for name in dict.fromkeys([*names, facts.metric])}


def _measured(facts: TaskFacts, examples: Examples, metric: str) -> Measured:
    return next(one for one in measure(facts.kind, examples, labels=facts.labels) if one.metric.name == metric)


def _examples(row: ModelResults, groups: Groups) -> list[TaskExample]:
    """The answers to the rows that say their group, in the order of the groups' rows under every seed."""
    wanted = set(groups.rows)
    return [example for example in row.tasks[0].examples if example.row in wanted]


def _instrument(name: str, meaning: str) -> Instrument:
    return Instrument(BIAS, name, "fraction", meaning)


def _two_sided(finding: Finding, *, rows: int) -> Finding:
    """A difference that was 0 in every draw may be as large as a rate that was never seen, either way."""
    reach = never_seen_in(max(rows, 1))

    def widened(estimate: Estimate | None) -> Estimate | None:
        if estimate is None or estimate.interval.method != "exact":
            return estimate
        return replace(estimate, interval=Interval(-reach, reach, "exact", 0.0))

    value = widened(finding.value)
    assert value is not None
    return replace(finding, value=value, teacher=widened(finding.teacher), untouched=widened(finding.untouched))


def _about(groups: Groups, findings: Sequence[Finding], run: FinishedTaskRun) -> Iterator[str]:
    """What a reader has to know of the groups of a field."""
    sizes = ", ".join(f"{count:,} {groups.field}={name}" for name, count in groups.sizes.items())
    silent = f"; {groups.silent:,} rows do not say it and are left out" if groups.silent else ""
    yield f"groups by {groups.field}: {sizes} test rows{silent}"
    for name, other in groups.pairs:
        first = next(iter(_metrics(run.results.tasks[0]).values()))
        of = [each for each in findings if each.instrument == f"{groups.field}={name} against {other}: {first}"]
        widths = [each.value.interval.high - each.value.interval.low for each in of if each.unknown is None]
        if widths:
            seen = change_in_words(detectable_difference(max(widths) / NORMAL), "fraction").removeprefix("+")
            against = f"{groups.field}={name} against {other}"
            yield f"{against}: a difference in {first} of {seen} would be seen four times of five"
    yield from _gold_apart(groups, run)


def _gold_apart(groups: Groups, run: FinishedTaskRun) -> Iterator[str]:
    """By how much what is right differs between groups: a model that is always right has shares that differ as much."""
    facts = run.results.tasks[0]
    if facts.kind != "classification":
        return
    gold = gold_answers(_examples(run.students[0].row, groups))
    for name, other in groups.pairs:
        apart = shares_apart(gold, facts.labels, groups.members(name)).value
        yield f"gold labels of {groups.field}={name} and of {other} differ in {apart:.1%} of the rows (total variation)"
