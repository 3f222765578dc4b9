"""Finished runs side by side: every number with its interval, every student against its baselines.

Numbers can only be compared on the same examples: a run that answered other prompts, or other rows of a task, is left
out of that table in one line, and stands in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation import closeness
from evaluation.analysis.entries import BASELINES, TEACHER, Entry, entries_of
from evaluation.analysis.task import TaskAnalysis, analyse
from evaluation.metric import Measured, Metric
from evaluation.results import FinalScores, RunResults, TaskFacts
from evaluation.statistics import Difference, Estimate, Resampling, compare_pairs, estimate
from evaluation.tasks.measuring import measure_one

CLOSENESS = ("forward_kl", "reverse_kl", "top1_agreement", "rouge_l")
"""The metrics at the teacher's answers that are compared; all of them stand in the report."""

PROMPTS = "test prompts"


@dataclass(frozen=True, slots=True)
class Against:
    """Students against one kind of baseline: by student, which model that is, and the difference."""

    baseline: str
    differences: Mapping[str, tuple[str, Difference]]


@dataclass(frozen=True, slots=True)
class MetricTable:
    """One metric of all models on the same examples; `on` names these: a task, or `PROMPTS`."""

    on: str
    metric: Metric
    estimates: Mapping[str, Estimate]
    against: tuple[Against, ...]


@dataclass(frozen=True, slots=True)
class StudentAnalysis:
    """A student beside its teacher on one task."""

    student: str
    teacher: str
    found: TaskAnalysis


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is said of these runs; `left_out` holds a line for what could not be compared, and why."""

    runs: tuple[str, ...]
    tables: tuple[MetricTable, ...]
    analyses: tuple[StudentAnalysis, ...]
    left_out: tuple[str, ...]


def compare_runs(runs: Mapping[str, RunResults], how: Resampling | None = None) -> Comparison:
    """Compare all models of these runs, by the names that tell them apart. The first run says which examples count."""
    entries, how = entries_of(runs), how or Resampling()
    left_out: list[str] = []
    tables = _prompt_tables(runs, entries, how, left_out)
    analyses: list[StudentAnalysis] = []
    for facts in _tasks(runs):
        scores = _scores(facts, runs, entries, left_out)
        by_model = {name: measure_one(facts, each.examples) for name, each in scores.items()}
        tables += [_table(facts.name, by_model, entries, how)] if by_model else []
        analyses += _analyses(facts, scores, entries, how)
    return Comparison(tuple(runs), tuple(tables), tuple(analyses), tuple(left_out))


def _prompt_tables(
    runs: Mapping[str, RunResults], entries: Sequence[Entry], how: Resampling, left_out: list[str]
) -> list[MetricTable]:
    first_name, first = next(iter(runs.items()))
    same = {name for name, run in runs.items() if (run.prompts, run.references) == (first.prompts, first.references)}
    left_out += [
        f"{PROMPTS}: {name} has other prompts or other answers of the teacher than {first_name}: it is left out"
        for name in runs
        if name not in same
    ]
    measured = {
        entry.name: closeness.measured(entry.model.closeness)
        for entry in entries
        if entry.run in same and entry.model.closeness is not None
    }
    by_metric = {
        metric: {name: found[metric] for name, found in measured.items() if metric in found} for metric in CLOSENESS
    }
    return [_table(PROMPTS, models, entries, how) for models in by_metric.values() if models]


def _tasks(runs: Mapping[str, RunResults]) -> list[TaskFacts]:
    """Each task once, as the first run that has it knows it."""
    found: dict[str, TaskFacts] = {}
    for run in runs.values():
        for facts in run.tasks:
            found.setdefault(facts.name, facts)
    return list(found.values())


def _scores(
    facts: TaskFacts, runs: Mapping[str, RunResults], entries: Sequence[Entry], left_out: list[str]
) -> dict[str, FinalScores]:
    """What each model made of the rows that all of them answered."""
    digests = {run: {each.name: each.digest for each in results.tasks} for run, results in runs.items()}
    for run, tasks in digests.items():
        if tasks.get(facts.name, facts.digest) != facts.digest:
            left_out.append(f"{facts.name}: {run} has another task of this name, or other rows: it is left out")
    scores = {
        entry.name: each
        for entry in entries
        if digests[entry.run].get(facts.name) == facts.digest
        for each in entry.model.tasks
        if each.task == facts.name and each.examples
    }
    rows = {name: {example.row for example in each.examples} for name, each in scores.items()}
    shared = set.intersection(*rows.values()) if rows else set()
    fewest = min(rows, key=lambda name: len(rows[name]), default="")
    if rows and len(shared) < max(map(len, rows.values())):
        left_out.append(f"{facts.name}: {len(shared)} rows that all models answered count; {fewest} answered fewest")
    return {
        name: FinalScores(each.task, each.answered_by, tuple(one for one in each.examples if one.row in shared))
        for name, each in scores.items()
        if shared
    }


def _table(on: str, models: Mapping[str, Measured], entries: Sequence[Entry], how: Resampling) -> MetricTable:
    against = []
    for kind in BASELINES:
        pairs = {
            entry.name: entry.baselines[kind]
            for entry in entries
            if kind in entry.baselines and entry.name in models and entry.baselines[kind] in models
        }
        found = compare_pairs({name: (models[other], models[name]) for name, other in pairs.items()}, how)
        if found:
            against.append(Against(kind, {name: (pairs[name], difference) for name, difference in found.items()}))
    estimates = {name: estimate(measured, how) for name, measured in models.items()}
    return MetricTable(on, next(iter(models.values())).metric, estimates, tuple(against))


def _analyses(
    facts: TaskFacts, scores: Mapping[str, FinalScores], entries: Sequence[Entry], how: Resampling
) -> list[StudentAnalysis]:
    pairs = [(entry.name, entry.baselines[TEACHER]) for entry in entries if TEACHER in entry.baselines]
    return [
        StudentAnalysis(student, teacher, analyse(facts, teacher=scores[teacher], student=scores[student], how=how))
        for student, teacher in pairs
        if student in scores and teacher in scores
    ]
