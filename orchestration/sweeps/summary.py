"""What a sweep found: the trials by score, the Pareto front of quality against size, what mattered, what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from rich.table import Table

from configs.visible_text import markdown_text
from orchestration.outputs.console import clock
from orchestration.sweeps.search import pareto_front
from orchestration.sweeps.space import Values
from orchestration.sweeps.trials import Outcome, Trial

SWEEP = "stillroom/sweep/1"
"""The schema of a kept sweep, with its version."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A sweep that is over. `metric` is what trials were judged by, on the dev split; lower is better.

    `importance` is each key's share in the variance of the score. `fill_tokens` were asked of the teacher before the
    first trial. `report` is the run directory of the best trial, compared on the test split.
    """

    name: str
    metric: str
    trials: tuple[Trial, ...]
    importance: Mapping[str, float]
    fill_tokens: int
    report: str

    @property
    def ranked(self) -> list[tuple[float, Trial, Outcome]]:
        """The trials with a score, the best first."""
        scored = [(trial.score(self.metric), trial) for trial in self.trials]
        found = [(score, trial, trial.outcome) for score, trial in scored if score is not None and trial.outcome]
        return sorted(found, key=lambda each: (each[0], each[1].number))

    @property
    def front(self) -> set[int]:
        """Numbers of the trials that no other beats both in score and in size."""
        ranked = self.ranked
        kept = pareto_front([(score, outcome.parameters) for score, _, outcome in ranked])
        return {ranked[at][1].number for at in kept}

    @property
    def teacher_tokens(self) -> int:
        """What the trials asked of the teacher, all together: none, as long as the fill held everything."""
        return sum(trial.outcome.teacher_tokens for trial in self.trials if trial.outcome is not None)


def best_trial(trials: Sequence[Trial], *, metric: str) -> Trial | None:
    """The one with the lowest score; the earliest of equal ones."""
    scored = [(trial.score(metric), trial) for trial in trials]
    return min(
        ((score, trial) for score, trial in scored if score is not None),
        key=lambda each: (each[0], each[1].number),
        default=(None, None),
    )[1]


COLUMNS = ("trial", "dev", "params", "front", "start", "time", "teacher tokens", "values")


def table(summary: Summary) -> Table:
    """The trials as the terminal shows them."""
    shown = Table(title=f"{summary.name}: {len(summary.trials)} trials by {summary.metric} (lower is better)")
    for title in COLUMNS:
        shown.add_column(title, justify="left" if title in ("front", "values") else "right", no_wrap=title != "values")
    for row in _rows(summary):
        shown.add_row(*row)
    return shown


def lines(summary: Summary) -> list[str]:
    """What there is to say beside the table, a line each."""
    said = [
        f"The trials asked the teacher for {summary.teacher_tokens:,} tokens; the fill before them for "
        f"{summary.fill_tokens:,}."
    ]
    if summary.importance:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in summary.importance.items())
        said.append(f"What mattered (share of the variance of {summary.metric}, fANOVA): {shares}.")
    if summary.ranked:
        score, trial, _ = summary.ranked[0]
        said.append(f"Best: trial {trial.number} ({in_words(trial.values)}) with {summary.metric} {score:.4f}.")
    return said + [
        f"Trial {trial.number} failed: {trial.outcome.failure}"
        for trial in summary.trials
        if trial.failed and trial.outcome is not None
    ]


def markdown(summary: Summary) -> str:
    """The same as a page."""
    written = [
        f"# {markdown_text(summary.name)}: a sweep of {len(summary.trials)} trials",
        "",
        f"Judged by {markdown_text(summary.metric)} on the dev split, lower is better. `*` marks the Pareto front of "
        "score and parameters. `start` is what the stages of a trial waited for their workers.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(map(markdown_text, row)) + " |" for row in _rows(summary)),
        "",
        *(f"- {markdown_text(line)}" for line in lines(summary)),
    ]
    return "\n".join(written) + "\n"


def in_words(values: Values) -> str:
    """The values of a trial in one line, by the last parts of their keys where these are enough to tell them apart."""
    names = {key: key.rpartition(".")[2] for key in values}
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    return ", ".join(f"{key if names[key] in twice else names[key]}={_short(value)}" for key, value in values.items())


def _short(value: JsonValue) -> str:
    """A number as far as anybody reads it; all of it stands in the file of the trials."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(summary: Summary) -> list[tuple[str, ...]]:
    front = summary.front
    return [
        (
            str(trial.number),
            f"{score:.4f}",
            f"{outcome.parameters / 1e6:,.1f} M",
            "*" if trial.number in front else "",
            f"{outcome.start_seconds:.1f} s",
            clock(outcome.seconds),
            f"{outcome.teacher_tokens:,}",
            in_words(trial.values),
        )
        for score, trial, outcome in summary.ranked
    ]
