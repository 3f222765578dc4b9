"""Where the numbers come from, what went wrong, and what they do not say."""

from __future__ import annotations

from collections.abc import Sequence

from configs.teachers import FIRST, is_stated
from evaluation.report.blocks import Block, Cell, Column, Lines, Paragraph, Row, Section, Table
from evaluation.report.merging import Part, run_names
from evaluation.results import RunResults
from evaluation.shipping import distils_a_task

DIGITS = 16
"""Of a digest that are shown: nobody compares more by eye."""


TASK_LIMITS = (
    "Test rows are of the kind that the students learned from; on other texts they may be worse.",
    "Intervals are over examples: how other seeds of training would have turned out is not in them. Of a student that "
    "was trained with several seeds, numbers are means over them, and what is shipped is the one that is best on dev.",
    "Tests are corrected for the students of one table, not for everything that is compared on this page.",
    "Speed and memory hold for the named machine and settings alone.",
    "Whether answers are fair, or rest on what they should not rest on, is known as far as audits looked.",
)


def provenance_section(runs: Sequence[RunResults]) -> Section:
    """Teacher, licences, digests of cache, configuration and data, versions."""
    names = run_names(runs)
    facts: dict[str, list[str]] = {}

    def note(key: str, index: int, value: str | None) -> None:
        facts.setdefault(key, [_UNKNOWN] * len(runs))[index] = value or _UNKNOWN

    for index, run in enumerate(runs):
        provenance = run.provenance
        note("teacher", index, provenance.teacher)
        note("teacher's identity", index, provenance.teacher_identity[:DIGITS])
        for model in run.models:
            if model.role == "teacher" and model.name != FIRST and not distils_a_task(run):
                note(f"identity of {model.name}", index, model.digest[:DIGITS])
        note("teacher's licence", index, provenance.teacher_licence)
        answers = "what the teacher said" if distils_a_task(run) else "cached answers (test view)"
        note(answers, index, provenance.cache_digest[:DIGITS])
        note("configuration", index, provenance.config_digest[:DIGITS])
        for name, digest in provenance.data.items():
            note(f"data: {name}", index, digest[:DIGITS])
        for task in run.tasks:
            note(f"task {task.name}: licence of its data", index, task.licence)
        for name, version in provenance.versions.items():
            note(f"version of {name}", index, version)
    rows = tuple(Row(key, tuple(Cell(value) for value in values)) for key, values in facts.items())
    columns = tuple(Column(name, numeric=False) for name in names)
    blocks: list[Block] = [Table("Cache, licences and versions", "of", columns, rows)]
    unlicensed = sorted({run.provenance.teacher for run in runs if not is_stated(run.provenance.teacher_licence)})
    if unlicensed:
        blocks.append(
            Paragraph(
                f"No licence is known of {', '.join(unlicensed)}. Whether its answers may train a model that is "
                "shipped is to be found out before one is."
            )
        )
    return Section("provenance", "Provenance", tuple(blocks))


_UNKNOWN = "unknown"


def failures_section(parts: Sequence[Part]) -> Section:
    """What failed, was set aside, or has to be known."""
    blocks: list[Block] = []
    for part in parts:
        for name, run in part.runs.items():
            of = f" ({name})" if len(parts) > 1 or len(part.runs) > 1 else ""
            lines = [*run.failures]
            lines += [f"{model.name}: {failure}" for model in run.models for failure in model.failures]
            if lines:
                blocks.append(Lines(f"Could not be done{of}", tuple(lines)))
            if run.rows_set_aside:
                rows = "row" if run.rows_set_aside == 1 else "rows"
                blocks.append(
                    Paragraph(
                        f"{run.rows_set_aside:,} {rows} of the data set aside{of}: rejected.jsonl says which and why."
                    )
                )
            for task in run.tasks:
                if task.set_aside:
                    blocks.append(Lines(f"Rows of the task {task.name} set aside{of}", task.set_aside))
            if run.notes:
                blocks.append(Lines(f"To know{of}", run.notes))
    return Section("failures", "What failed", tuple(blocks or [Paragraph("Nothing.")]))


def limits_section(parts: Sequence[Part]) -> Section:
    """What the numbers do not say."""
    if all(distils_a_task(part.results) for part in parts):
        return Section("limits", "Limits", (Lines("What the numbers do not say", TASK_LIMITS),))
    prompts = min(len(part.results.prompts) for part in parts)
    lines = [
        f"Closeness is measured at {prompts} test prompts of the kind that the students learned from; at other prompts "
        "it may be less.",
        "A student that is close to its teacher repeats its mistakes too. Only tasks with right answers tell good from "
        "close.",
        "Intervals are over examples: how other seeds of training would have turned out is not in them.",
        "Tests are corrected for the students of one table, not for everything that is compared on this page.",
        "Divergences know the teacher's most likely tokens; all others count as one (a lower bound on the divergence).",
        "Speed, memory and energy hold for the named machine and settings alone.",
        "Whether answers are safe, fair or free of personal data is known as far as audits looked.",
    ]
    if not any(part.results.tasks for part in parts):
        lines.insert(0, "No task was run: nothing here says whether an answer is right.")
    return Section("limits", "Limits", (Lines("What the numbers do not say", tuple(lines)),))
