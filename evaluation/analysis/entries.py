"""Who stands in a comparison, and whom each student has to be compared with.

A student has three baselines: its teacher, the untouched model that it started from, and the simplest method that was
tried beside it (`simplest_beside`). A method that does not beat the last is not worth its trouble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.results import ModelResults, RunResults
from evaluation.verdict import gold_twin

SIMPLEST = ("hard_labels", "sft", "seqkd")
"""Methods that need no more of a teacher than text or labels, the plainest first."""

TEACHER, START, SIMPLER = "its teacher", "its start", "the simplest method"
BASELINES = (TEACHER, START, SIMPLER)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model under the name that it has in the comparison; `baselines` are names of other entries by `BASELINES`."""

    name: str
    run: str
    model: ModelResults
    baselines: Mapping[str, str]


def entries_of(runs: Mapping[str, RunResults]) -> tuple[Entry, ...]:
    """The models of all runs. Of several runs, names bear that of the run, and what two runs hold stands once."""
    kept: dict[tuple[str, str], str] = {}
    named: dict[tuple[str, str], str] = {}
    entries: list[Entry] = []
    for run, results in runs.items():
        for model in results.models:
            name = model.name if len(runs) == 1 else f"{run}: {model.name}"
            named[run, model.name] = kept.setdefault((model.role, model.digest), name)
        for model in results.models:
            if named[run, model.name] not in {entry.name for entry in entries}:
                found = {what: named[run, other] for what, other in _baselines(model, results).items()}
                entries.append(Entry(named[run, model.name], run, model, found))
    return tuple(entries)


def simplest_beside(model: ModelResults, models: Sequence[ModelResults]) -> ModelResults | None:
    """The student of the simplest method that `model` has to beat; None where no plainer one was trained.

    The nearest is the same student on gold labels alone, then one of the same start, then the plainest.
    """
    plainer = [other for other in models if other.role == "student" and _plainness(other) < _plainness(model)]
    twin = [other for other in models if other.name == gold_twin(model.name)]
    return min(twin or plainer, key=lambda other: (other.start != model.start, _plainness(other)), default=None)


def _plainness(model: ModelResults) -> int:
    """The place of its method among the simplest; behind all of them if it is none."""
    return SIMPLEST.index(model.method) if model.method in SIMPLEST else len(SIMPLEST)


def _baselines(model: ModelResults, results: RunResults) -> dict[str, str]:
    if model.role != "student":
        return {}
    teachers = [other.name for other in results.models if other.role == "teacher"]
    found = dict(zip((TEACHER,), teachers, strict=False))
    if model.start in {other.name for other in results.models}:
        found[START] = str(model.start)
    simple = simplest_beside(model, results.models)
    if simple is not None:
        found[SIMPLER] = simple.name
    return found
