"""A comparison of finished runs as sections of tables and sentences, for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from configs.visible_text import markdown_text
from evaluation.analysis import Comparison, Gap, HitTable, MetricTable, PairsAnswered, Slice, StudentAnalysis
from evaluation.statistics import in_words, interval_in_words, number_in_words
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.console import Console
from orchestration.outputs.fields import to_fields

COMPARISON = "stillroom/comparison/1"
"""The schema of `compare.json`, with its version."""

SHOWN = 160
"""Characters of a row or an answer that are shown of a gap."""

GAPS_SHOWN = 3

COLUMNS = ("model", "value", "95 %", "n")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a table with `COLUMNS` (or none), and sentences below it."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]


def sections_of(comparison: Comparison) -> tuple[Section, ...]:
    """What is shown, in its order: numbers and differences, then what students took over, then what was left out."""
    sections = [_metric_section(table) for table in comparison.tables]
    sections += [
        Section(f"{each.found.task}: {each.student} beside {each.teacher}", (), tuple(_sentences(each)))
        for each in comparison.analyses
    ]
    if comparison.left_out:
        sections.append(Section("Left out", (), comparison.left_out))
    return tuple(sections)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Show it on a terminal."""
    for section in sections_of(comparison):
        console.say(section.title)
        if section.rows:
            table = Table()
            for column in COLUMNS:
                table.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
            for row in section.rows:
                table.add_row(*row)
            console.say(table)
        for line in section.lines:
            console.say(f"  {line}")
        console.say()


def write_comparison(comparison: Comparison, directory: Path) -> tuple[Path, Path]:
    """Write `compare.md` and `compare.json`; returns their paths.

    Raises:
        OSError: they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    page, data = directory / "compare.md", directory / "compare.json"
    page.write_text(_markdown(comparison), encoding="utf-8", errors="backslashreplace")
    write_json(data, _fields(comparison))
    return page, data


def _metric_section(table: MetricTable) -> Section:
    unit = table.metric.unit
    rows = tuple(
        (name, number_in_words(found.value, unit), interval_in_words(found.interval, unit), str(found.n))
        for name, found in table.estimates.items()
    )
    lines = [
        f"{student} against {against.baseline} ({other}): {in_words(difference, table.metric)}"
        for against in table.against
        for student, (other, difference) in against.differences.items()
    ]
    return Section(f"{table.on}: {table.metric.name} ({table.metric.better} is better)", rows, tuple(lines))


def _sentences(each: StudentAnalysis) -> Iterator[str]:
    found = each.found
    yield f"{found.answers} answers of both; right: {found.hit}"
    yield _hits_in_words(found.hits)
    if found.retention is not None:
        kept, interval = found.retention.value, found.retention.interval
        yield (
            f"keeps {number_in_words(kept, 'fraction')} of the teacher's {found.retention.metric} "
            f"(95 %: {interval_in_words(interval, 'fraction')})"
        )
    for what, slices in (("class", found.by_class_frequency), ("prompt", found.by_length)):
        if slices:
            yield f"by {what}: " + "; ".join(map(_slice_in_words, slices))
    if found.confidence.n:
        yield (
            f"confidences: Pearson {_correlation(found.confidence.pearson)}, "
            f"Spearman {_correlation(found.confidence.spearman)} (n = {found.confidence.n})"
        )
    if found.pairs is not None:
        yield _pairs_in_words(found.pairs)
    for gap in found.gaps[:GAPS_SHOWN]:
        yield _gap_in_words(gap)


def _hits_in_words(hits: HitTable) -> str:
    shared = ""
    if hits.student_only + hits.neither:
        shared = (
            f"; of the teacher's {hits.student_only + hits.neither} mistakes it makes {hits.neither} "
            f"({hits.mistakes_shared:.0%}), {hits.same_mistake} of them with the same wrong answer"
        )
    return (
        f"both right {hits.both}, the teacher alone {hits.teacher_only}, the student alone {hits.student_only}, "
        f"neither {hits.neither}{shared}"
    )


def _slice_in_words(part: Slice) -> str:
    kept = number_in_words(part.retention, "fraction")
    return f"{part.name} {kept} kept ({part.student:.2f} of {part.teacher:.2f}, n = {part.n})"


def _correlation(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.2f}"


def _pairs_in_words(pairs: PairsAnswered) -> str:
    return (
        f"minimal pairs: both right in {pairs.student_right} of {pairs.pairs} (teacher {pairs.teacher_right}); "
        f"the answer changes in {pairs.student_changes} (teacher {pairs.teacher_changes}, "
        f"it should in {pairs.should_change})"
    )


def _gap_in_words(gap: Gap) -> str:
    said = gap.student.answer or ", ".join(gap.student.predicted or ())
    return (
        f"gap in row {gap.teacher.row}, {_short(gap.teacher.shown)!r}: right is "
        f"{_short(', '.join(gap.teacher.gold))!r}, the student says {_short(said)!r}{_sureness(gap)}"
    )


def _sureness(gap: Gap) -> str:
    if math.isnan(gap.confidence_gap):
        return ""
    return f" (sure by {gap.student.confidence:.2f}, the teacher of the right one by {gap.teacher.confidence:.2f})"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN else f"{flat[:SHOWN]} ..."


def _markdown(comparison: Comparison) -> str:
    runs = ", ".join(map(markdown_text, comparison.runs))
    lines = [f"# Comparison of {runs}", "", "How to read it: docs/evaluation.md of Stillroom."]
    for section in sections_of(comparison):
        lines += ["", f"## {markdown_text(section.title)}", ""]
        if section.rows:
            lines += ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
            lines += ["| " + " | ".join(map(markdown_text, row)) + " |" for row in section.rows]
            lines.append("")
        lines += [f"- {markdown_text(line)}" for line in section.lines]
    return "\n".join(lines) + "\n"


def _fields(comparison: Comparison) -> dict[str, object]:
    """Everything, gaps with their whole texts included; NaN is null."""
    tables = [
        {
            "on": table.on,
            "metric": table.metric.name,
            "unit": table.metric.unit,
            "better": table.metric.better,
            "estimates": to_fields(table.estimates),
            "against": [
                {
                    "baseline": against.baseline,
                    "differences": {
                        student: {"baseline": other, **to_fields(difference)}
                        for student, (other, difference) in against.differences.items()
                    },
                }
                for against in table.against
            ],
        }
        for table in comparison.tables
    ]
    return {
        "schema": COMPARISON,
        "runs": list(comparison.runs),
        "tables": tables,
        "analyses": to_fields(comparison.analyses),
        "left_out": list(comparison.left_out),
    }
