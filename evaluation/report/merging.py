"""Runs whose models can stand in one table: they answered the same prompts, after the same teachers.

Runs that can be compared become one `RunResults`, in which a model that several runs hold stands once and names that
mean different models say which run they are of. Runs that cannot are told apart, never averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluation.results import ModelResults, RunResults, TaskFacts


@dataclass(frozen=True, slots=True)
class Part:
    """Runs that can be compared, by the names that tell them apart, and their models as if they were of one run."""

    runs: Mapping[str, RunResults]
    results: RunResults
    numbers: Mapping[str, int]
    """The number of each model on the page: 0 is the teacher, 1 an untouched student."""
    key: str = ""
    """Begins the ids of what belongs to this part, where a page has several."""

    @property
    def title(self) -> str:
        """The names of its runs."""
        return ", ".join(self.runs)


def parts_of(runs: Sequence[RunResults]) -> tuple[Part, ...]:
    """The runs in groups that can be compared, in the order in which they were given."""
    groups: list[list[int]] = []
    for index, run in enumerate(runs):
        home = next((group for group in groups if all(_comparable(runs[other], run) for other in group)), None)
        if home is None:
            groups.append([index])
        else:
            home.append(index)
    names = run_names(runs)
    keys = [f"part{number}-" if len(groups) > 1 else "" for number in range(1, len(groups) + 1)]
    return tuple(
        _part({names[index]: runs[index] for index in group}, key=key) for key, group in zip(keys, groups, strict=True)
    )


def run_names(runs: Sequence[RunResults]) -> tuple[str, ...]:
    """A name for each run: its experiment, and of several runs of one the beginning of the configuration's digest."""
    count = Counter(run.experiment for run in runs)
    names = [
        run.experiment if count[run.experiment] == 1 else f"{run.experiment} {run.provenance.config_digest[:7]}"
        for run in runs
    ]
    twice = Counter(names)
    return tuple(name if twice[name] == 1 else f"{name} #{index + 1}" for index, name in enumerate(names))


def _comparable(one: RunResults, other: RunResults) -> bool:
    digests = {task.name: task.digest for task in one.tasks}
    if not one.prompts and not other.prompts:
        # Without prompts it is the task that is shared, and the teacher.
        teachers = one.provenance.teacher_identity, other.provenance.teacher_identity
        return digests == {task.name: task.digest for task in other.tasks} and len(set(teachers)) == 1
    if one.held_against != other.held_against:
        # Students of other weights learned something else, and each is measured by that.
        return False
    return (one.prompts, one.references) == (other.prompts, other.references) and all(
        digests.get(task.name, task.digest) == task.digest for task in other.tasks
    )


def _part(runs: Mapping[str, RunResults], *, key: str) -> Part:
    first = next(iter(runs.values()))
    tasks: dict[str, TaskFacts] = {task.name: task for run in runs.values() for task in run.tasks}
    models = _models(runs)
    merged = replace(first, experiment=", ".join(runs), models=models, tasks=tuple(tasks.values()))
    return Part(runs, merged, _numbers(models), key)


def _models(runs: Mapping[str, RunResults]) -> tuple[ModelResults, ...]:
    """The models of all runs, teachers first; what has two meanings says which run it is of.

    A model that several runs hold stands once. One that a run names twice stands twice: two students that differ in
    their teaching alone are the same on gold labels alone, and each is compared with its own twin, by name.
    """
    meanings: dict[str, set[str]] = {}
    for run in runs.values():
        for model in run.models:
            meanings.setdefault(model.name, set()).add(model.digest)
    kept: dict[tuple[str, str, int], ModelResults] = {}
    for title, run in runs.items():
        seen = Counter[tuple[str, str]]()
        names = {
            model.name: model.name if len(meanings[model.name]) == 1 else f"{title}: {model.name}"
            for model in run.models
        }
        for model in run.models:
            start = None if model.start is None else names.get(model.start, model.start)
            what = model.role, model.digest
            kept.setdefault((*what, seen[what]), replace(model, name=names[model.name], start=start))
            seen[what] += 1
    order = {"teacher": 0, "untouched": 1}
    return tuple(sorted(kept.values(), key=lambda model: order.get(model.role, 2)))


def _numbers(models: Sequence[ModelResults]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for model in models:
        wanted = {"teacher": 0, "untouched": 1}.get(model.role)
        taken = set(numbers.values())
        numbers[model.name] = wanted if wanted is not None and wanted not in taken else max({1, *taken}) + 1
    return numbers
