"""The comparison at the end: a table and sample answers side by side on the terminal, and the results as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from configs import ConfigError
from configs.visible_text import visible
from evaluation.qualities import closeness_title
from evaluation.results import ModelResults, RunResults, Span
from evaluation.verdict import verdicts
from orchestration.comparison.numbers import closeness_numbers, tokens_per_s
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.console import Console, clock
from orchestration.outputs.fields import from_fields, to_fields
from orchestration.outputs.foundations import RestsOn
from orchestration.outputs.kept import OutdatedError, read_sealed, sealed

ANSWER_SHOWN = 240
"""Characters of a sample answer that the terminal shows; the files hold all of it."""

COLUMNS = ("model", "params", "KL(teacher‖·)", "KL(·‖teacher)", "top-1", "Rouge-L", "ppl", "tok/s")

NOTHING = "-"
"""Stands in a cell for what was not, or could not be, measured."""

REPORT = "stillroom/report/8"
"""The schema of a kept comparison, with its version."""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished experiment: its results and what they were made from.

    `evidence` names what was measured of each model, in words by the digest that it is kept under.
    """

    results: RunResults
    rests_on: RestsOn
    evidence: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """A line for whatever could not be measured; the next run tries again."""
        of_models = (f"{model.name}: {line}" for model in self.results.models for line in model.failures)
        return (*self.results.failures, *of_models)


def timed(report: Report, timeline: tuple[Span, ...]) -> Report:
    """A report that says what ran when, too."""
    return replace(report, results=replace(report.results, timeline=timeline))


def write_report(report: Report, run_dir: Path) -> None:
    """Write `report.json`, which marks the experiment as finished."""
    config_digest = report.results.provenance.config_digest
    write_json(run_dir / "report.json", sealed(REPORT, config_digest, to_fields(report)))


def read_report(run_dir: Path) -> Report | None:
    """The report of a finished experiment, or None.

    Raises:
        OutdatedError: it is not what was written, or another version wrote it.
    """
    path = run_dir / "report.json"
    raw = read_sealed(path, schema=REPORT)
    if raw is None:
        return None
    try:
        report = from_fields(Report, raw)
        _require_whole(report.results)
    except ValueError as error:
        raise OutdatedError(f"{path}: is not a comparison ({error})") from error
    return report


def read_results(run_dir: Path) -> RunResults:
    """The results in a run directory, for whoever compares finished runs.

    Raises:
        OutdatedError: they are not what was written, or another version wrote them.
        ConfigError: there are none.
    """
    report = read_report(run_dir)
    if report is None:
        raise ConfigError(f"{run_dir} holds no finished comparison: name the run directory of a finished experiment")
    return report.results


def _require_whole(results: RunResults) -> None:
    prompts = len(results.prompts)
    if {len(results.references), len(results.reference_tokens)} != {prompts}:
        raise ValueError("it does not have an answer to every prompt")
    for model in results.models:
        closeness = model.closeness
        if {len(model.answers), len(model.answer_tokens)} - {0, prompts}:
            raise ValueError("it does not have an answer to every prompt")
        if closeness is not None and {*map(len, closeness.sums)} - {len(closeness.columns)}:
            raise ValueError("a row of sums has not one for every column")


def print_report(report: Report, console: Console, *, samples: int) -> None:
    """Show the table, what to think of each student, `samples` answers side by side and the times."""
    results = report.results
    table = Table(title=f"{results.experiment}: held-out comparison ({len(results.prompts)} test prompts)")
    for title in (closeness_title(column, results) for column in COLUMNS):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for cells in _rows(report):
        table.add_row(*cells)
    console.say(table)
    if results.held_against:
        console.say(results.held_against)
    warn_of_notes(report, console)
    for opinion in verdicts(results).values():
        console.say(opinion.sentence)
    for index in range(min(samples, len(results.prompts))):
        console.say(_sample(results, index))
    print_times(results, console)


def warn_of_notes(report: Report, console: Console) -> None:
    """Say what a reader of the comparison has to know."""
    for note in _notes(report, console):
        console.warn(note)


def print_times(results: RunResults, console: Console) -> None:
    """What the stages took, in one line."""
    stages = results.cost.stages
    if stages:
        console.say(
            "Times: "
            + ", ".join(f"{stage.name} {clock(stage.seconds)}" for stage in stages)
            + f"; together {clock(sum(stage.seconds for stage in stages))}"
        )


def speed_marks(results: RunResults) -> dict[str, str]:
    """A letter for each machine and setting that speeds were measured on; empty where there is only one.

    A model that was measured for an earlier experiment keeps its speed, whatever it was measured on then.
    """
    served = (model.serving for model in results.models if model.serving is not None and model.serving.speeds)
    kinds = list(dict.fromkeys(serving.measured_on for serving in served))
    return {kind: f" {_letter(number)}" for number, kind in enumerate(kinds)} if len(kinds) > 1 else {}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"#{number}"


def _notes(report: Report, console: Console) -> list[str]:
    """What a reader of the table has to know; of what a stage has warned of on this terminal, where it stands."""
    notes = [note for note in report.results.notes if not console.has_warned(note)]
    above = len(report.results.notes) - len(notes)
    if above:
        said = "a warning of training stands" if above == 1 else f"{above} warnings of training stand"
        notes.append(f"{said} above, {'at its' if above == 1 else 'each at its'} stage, and in report.md")
    speeds = [f"tok/s{mark}: {kind}" for kind, mark in speed_marks(report.results).items()]
    if speeds:
        speeds.insert(0, "Speeds that bear different letters were measured on different machines or settings:")
    return [*(f"not measured: {line}" for line in report.missing), *notes, *speeds]


def _rows(report: Report) -> list[tuple[str, ...]]:
    marks = speed_marks(report.results)
    return [
        _cells(model, mark="" if model.serving is None else marks.get(model.serving.measured_on, ""))
        for model in report.results.models
    ]


def _cells(model: ModelResults, *, mark: str) -> tuple[str, ...]:
    numbers, speed = closeness_numbers(model), tokens_per_s(model)
    stderr = numbers.get("forward_kl_stderr")  # one sequence alone has none
    interval = "" if stderr is None else f" ± {1.96 * stderr:.3f}"

    def cell(name: str, shape: str, *, scale: float = 1.0, unit: str = "") -> str:
        return f"{scale * numbers[name]:{shape}}{unit}" if name in numbers else NOTHING

    perplexity = cell("perplexity", ",.2f" if numbers.get("perplexity", math.inf) < 1e5 else ".1e")
    return (
        model.name,
        f"{model.parameters / 1e6:,.1f} M",
        cell("forward_kl", ".3f", unit=interval),
        cell("reverse_kl", ".3f"),
        cell("top1_agreement", ".1f", scale=100.0, unit=" %"),
        cell("rouge_l", ".1f"),
        perplexity,
        NOTHING if speed is None else f"{speed.median:,.0f}{mark}",
    )


def _sample(results: RunResults, index: int) -> Table:
    table = Table(title=_short(results.prompts[index]), title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=100)
    for model in results.models:
        if model.answers:
            table.add_row(model.name, _short(model.answers[index]))
    return table


def _short(text: str) -> str:
    """One line, cut; an answer that would drive the terminal shows how."""
    return visible(" ".join(text.split()), at_most=ANSWER_SHOWN)
