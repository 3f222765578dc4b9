"""The comparison of an experiment that distils a task, on the terminal: a table, and a sentence on each student."""

from __future__ import annotations

import math

from rich.table import Table

from configs.visible_text import visible
from evaluation.analysis.retention import retention
from evaluation.qualities import Quality, qualities
from evaluation.report.numbers import written
from evaluation.results import ModelResults, RunResults, TaskFacts
from evaluation.serving import text_speed, times_faster
from evaluation.shipping import constant_answer, kept_in_words
from evaluation.statistics import Resampling, estimate, interval_in_words, number_in_words
from evaluation.verdict import opinions_of
from orchestration.comparison.report import ANSWER_SHOWN, NOTHING, Report, print_times, warn_of_notes
from orchestration.outputs.console import Console

TIMED = (1, 32)
"""Batches whose times are shown."""


def print_task_report(report: Report, console: Console, *, samples: int, how: Resampling | None = None) -> None:
    """Show what every model scores and takes, what to think of each student, answers to some rows, and the times."""
    results = report.results
    facts = results.tasks[0]
    measured = qualities(results, how=how)
    way = next((each for each in measured if each.task == facts.name and each.headline), None)
    metric = facts.metric.replace("_", " ")
    table = Table(title=f"{results.experiment}: {facts.name} on {facts.test_rows} test rows")
    times = [f"batch {batch}" for batch in TIMED]
    columns = ("model", "params", "on disk", f"{metric} (95 %)", "kept of the teacher's", *times)
    for title in columns:
        table.add_column(title, justify="left" if title == "model" else "right")
    for model in results.models:
        table.add_row(*_cells(model, results, way))
    table.add_row(*_constant(facts), *[NOTHING] * (1 + len(TIMED)))
    console.say(table)
    machines = dict.fromkeys(model.serving.measured_on for model in results.models if model.serving is not None)
    teacher = _teacher(results)
    compared = ", and how many times as fast as the teacher" if teacher is not None and teacher.serving else ""
    for machine in machines:
        console.say(f"Times a text{compared}: {machine}")
    warn_of_notes(report, console)
    for opinion in opinions_of(results.models, measured).values():
        console.say(opinion.sentence)
    for sample in _samples(results, facts, wanted=samples):
        console.say(sample)
    print_times(results, console)


def _cells(model: ModelResults, results: RunResults, way: Quality | None) -> list[str]:
    teacher = _teacher(results)
    return [
        model.name,
        f"{model.parameters / 1e6:,.1f} M",
        written(model.disk_bytes, "bytes") if model.disk_bytes else NOTHING,
        _score(model, way),
        _kept(model, teacher, way),
        *(_time(model, teacher, batch=batch) for batch in TIMED),
    ]


def _teacher(results: RunResults) -> ModelResults | None:
    return next((model for model in results.models if model.role == "teacher"), None)


def _score(model: ModelResults, way: Quality | None) -> str:
    if way is None or model.name not in way.measured:
        return NOTHING
    found, unit = estimate(way.measured[model.name], way.how), way.metric.unit
    between = "" if math.isnan(found.interval.low) else f" ({interval_in_words(found.interval, unit)})"
    return f"{number_in_words(found.value, unit)}{between}"


def _kept(model: ModelResults, teacher: ModelResults | None, way: Quality | None) -> str:
    if way is None or teacher is None or model is teacher or not {model.name, teacher.name} <= way.measured.keys():
        return NOTHING
    theirs, ours = way.measured[teacher.name], way.measured[model.name]
    if theirs.sums.shape != ours.sums.shape:
        return NOTHING
    return kept_in_words(retention(theirs, ours, way.how)).replace("95 % CI ", "")


def _time(model: ModelResults, teacher: ModelResults | None, *, batch: int) -> str:
    speed = text_speed(model, batch)
    if speed is None:
        return NOTHING
    ratio = None if teacher is None or model is teacher else times_faster(model, teacher, batch=batch)
    return written(speed.spread.median, "seconds") + ("" if ratio is None else f", {ratio.median:.1f} x")


def _constant(facts: TaskFacts) -> list[str]:
    return [constant_answer(facts), NOTHING, NOTHING, number_in_words(facts.baseline, facts.unit)]


def _samples(results: RunResults, facts: TaskFacts, *, wanted: int) -> list[Table]:
    """The first test rows with what is right and which models said what."""
    answers = {
        model.name: {example.row: example for example in reversed(scores.examples)}
        for model in results.models
        for scores in model.tasks
        if scores.task == facts.name
    }
    rows = {row: example for found in answers.values() for row, example in sorted(found.items())}
    tables = []
    for row, example in sorted(rows.items())[:wanted]:
        table = Table(title=_line(example.shown), title_justify="left", show_header=False, min_width=60)
        table.add_column(style="bold", max_width=60)
        table.add_column(overflow="fold", max_width=100)
        table.add_row("right", _line(", ".join(example.gold)))
        said: dict[str, list[str]] = {}
        for name, found in answers.items():
            if row in found:
                said.setdefault(_line(", ".join(found[row].predicted or ())), []).append(name)
        for answer, names in said.items():
            table.add_row(", ".join(names), answer)
        tables.append(table)
    return tables


def _line(text: str) -> str:
    return visible(" ".join(text.split()), at_most=ANSWER_SHOWN) or "nothing"
