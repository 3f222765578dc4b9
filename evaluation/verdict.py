"""What to think of each student, in one sentence: what it is good for, what not, and whether it was worth its method.

A student is held against the model that it started from and against students of simpler methods, on the same answers
and examples (`evaluation.statistics`): what is said to be better or worse was seen, and where nothing was seen, the
sentence says so. Whether it is good enough for a task is a judgement, and the limits below are its whole content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.closeness import measured
from evaluation.metric import Measured
from evaluation.results import ModelResults, RunResults
from evaluation.statistics import Difference, Resampling, change_in_words, compare_models, in_words, number_in_words
from evaluation.tasks.measuring import measure

METHODS = ("sft", "seqkd", "kd", "minillm")
"""Objectives from the simplest to the most involved; any other counts as more involved than all of them."""

CLOSE_NATS, CLOSE_TOP1 = 0.5, 0.7
"""A student this close to its teacher's next tokens can stand in for it where nothing else was measured."""

KEPT_WELL, KEPT_BADLY = 0.9, 0.5
"""Parts of the teacher's lead over the best constant answer: from here on a student is good for a task, or not."""

DIVERGENCES = {"forward_kl": "KL(teacher‖·)", "reverse_kl": "KL(·‖teacher)"}
"""By which of the metrics of closeness a student is held against others, and how they are called."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One way to judge models: `of` by the name of a model. `floor` is what the best constant answer scores."""

    name: str
    of: Mapping[str, Measured]
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What to think of a student, in one sentence.

    It `got_worse` when it is worse than its start in something, and better in nothing.
    """

    sentence: str
    got_worse: bool


def verdicts(results: RunResults, *, how: Resampling | None = None) -> dict[str, Opinion]:
    """What to think of each student, by name: the terminal, the page and the tracker say it in these words."""
    return judged(results.models, [*_closeness(results), *_tasks(results)], how=how)


def judged(
    models: Sequence[ModelResults], ways: Sequence[Judged], *, how: Resampling | None = None
) -> dict[str, Opinion]:
    """What to think of each student, by name, from whatever models were judged by."""
    teacher = next((model.name for model in models if model.role == "teacher"), None)
    students = [model for model in models if model.role == "student"]
    against_start = {way.name: _against_starts(way, students, how=how) for way in ways}
    found = {}
    for student in students:
        parts = [
            *_uses(student, teacher, ways),
            _start(student, ways, against_start),
            _simpler(student, students, ways, how=how),
        ]
        said = "; ".join(filter(None, parts)) or "nothing of it could be measured"
        seen = {each[student.name].verdict for each in against_start.values() if student.name in each}
        found[student.name] = Opinion(f"{student.name}: {said}.", "worse" in seen and "better" not in seen)
    return found


def _closeness(results: RunResults) -> list[Judged]:
    numbers = {m.name: measured(m.closeness) for m in results.models if m.closeness is not None}
    return [
        Judged(name, {model: each[metric] for model, each in numbers.items() if metric in each})
        for metric, name in DIVERGENCES.items()
    ]


def _tasks(results: RunResults) -> list[Judged]:
    """Every task in the metric that it is judged by."""
    found = []
    for task in results.tasks:
        of = {}
        for model in results.models:
            for scores in model.tasks:
                if scores.task == task.name:
                    every = measure(task.kind, scores.examples, labels=task.labels)
                    of[model.name] = next(each for each in every if each.metric.name == task.metric)
        found.append(Judged(task.name, of, task.baseline))
    return found


def _against_starts(way: Judged, students: Sequence[ModelResults], *, how: Resampling | None) -> dict[str, Difference]:
    """Each student against its start; the correction is over the students of one start."""
    found: dict[str, Difference] = {}
    for start in dict.fromkeys(student.start for student in students if student.start is not None):
        models = {
            each.name: way.of[each.name]
            for each in students
            if each.start == start and _on_the_same(way, each.name, start)
        }
        if models:
            found |= compare_models(way.of[start], models, how)
    return found


def _uses(student: ModelResults, teacher: str | None, ways: Sequence[Judged]) -> list[str]:
    """What it is good for and what not: tasks where there are any, else its teacher's next tokens."""
    good, bad = [], []
    for way in ways:
        if way.floor is None or teacher is None or not {student.name, teacher} <= way.of.keys():
            continue
        ours, theirs = way.of[student.name].value, way.of[teacher].value
        shown = number_in_words(ours, way.of[student.name].metric.unit)
        kept = (ours - way.floor) / (theirs - way.floor) if theirs > way.floor else float("nan")
        if kept >= KEPT_WELL:
            good.append(f"{way.name} ({shown}, {kept:.0%} of the teacher's lead over a constant answer)")
        elif ours <= way.floor:
            bad.append(f"{way.name} ({shown}, no better than a constant answer)")
        elif kept <= KEPT_BADLY:
            bad.append(f"{way.name} ({shown}, {kept:.0%} of the teacher's lead over a constant answer)")
    said = [f"good for {' and '.join(good)}"] if good else []
    said += [f"not for {' and '.join(bad)}"] if bad else []
    return said or _nearness(student)


def _nearness(student: ModelResults) -> list[str]:
    numbers = {} if student.closeness is None else measured(student.closeness)
    if not {"forward_kl", "top1_agreement"} <= numbers.keys():
        return []
    nats, top1 = numbers["forward_kl"].value, numbers["top1_agreement"].value
    where = f"{nats:.2f} nats, {top1:.0%} of its next tokens"
    if nats <= CLOSE_NATS and top1 >= CLOSE_TOP1:
        return [f"good for answers in its teacher's manner ({where})"]
    return [f"not a stand-in for its teacher ({where}), good for a draft that somebody checks"]


def _start(student: ModelResults, ways: Sequence[Judged], against_start: Mapping[str, Mapping[str, Difference]]) -> str:
    found = {way: against_start[way.name][student.name] for way in ways if student.name in against_start[way.name]}
    worse = [way for way, difference in found.items() if difference.verdict == "worse"]
    better = [way for way, difference in found.items() if difference.verdict == "better"]
    if worse:
        return f"worse than its start in {_listed(worse, found, student)}" + (
            f", better in {_listed(better, found, student)}" if better else ""
        )
    if better:
        return f"better than its start in {_listed(better, found, student)}"
    if found:
        way, difference = next(iter(found.items()))
        return f"against its start, {in_words(difference, way.of[student.name].metric)}"
    return ""


def _listed(ways: Sequence[Judged], found: Mapping[Judged, Difference], student: ModelResults) -> str:
    units = [way.of[student.name].metric.unit for way in ways]
    changes = [
        f"{way.name} ({change_in_words(found[way].estimate, unit)})" for way, unit in zip(ways, units, strict=True)
    ]
    return ", ".join(changes)


def _simpler(
    student: ModelResults, students: Sequence[ModelResults], ways: Sequence[Judged], *, how: Resampling | None
) -> str:
    """The first simpler method that this student does not beat in anything, at no greater size."""
    rivals = [
        rival for rival in students if _involved(rival) < _involved(student) and rival.parameters <= student.parameters
    ]
    for rival in sorted(rivals, key=_involved):
        both = [way for way in ways if _on_the_same(way, student.name, rival.name)]
        found = [compare_models(way.of[rival.name], {student.name: way.of[student.name]}, how) for way in both]
        verdicts = [each[student.name].verdict for each in found]
        if verdicts and not {"better", "undefined"} & set(verdicts):
            how_far = "beaten" if "worse" in verdicts else "equalled"
            return f"{how_far} by {rival.name}, whose method is simpler ({rival.method}, no more parameters)"
    return ""


def _on_the_same(way: Judged, one: str, other: str) -> bool:
    """Whether two models were measured on as many examples; not so where one of them failed."""
    return {one, other} <= way.of.keys() and way.of[one].sums.shape == way.of[other].sums.shape


def _involved(model: ModelResults) -> tuple[int, int]:
    """The most involved objective of its stages, then their number."""
    stages = model.method.split(", ")
    return max(METHODS.index(stage) if stage in METHODS else len(METHODS) for stage in stages), len(stages)
