"""The verdict in words: which student to ship and why, and below it what is said of each student everywhere.

The student is chosen on the dev split, by the divergence from the teacher at the end of its training; where that was
not measured of all students, on the test split, which is said: the numbers of what was chosen by them are too good.
Students of a task have a rule of their own (`evaluation.shipping`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.report.judged import Judged
from evaluation.report.merging import Part
from evaluation.report.numbers import written
from evaluation.results import ModelResults
from evaluation.shipping import distils_a_task, ship
from evaluation.verdict import Opinion

DEV = "dev/forward_kl"
"""The curve by which students are chosen; its lowest point is the student that was kept."""

RULE = (
    "Students of a task are chosen on the dev split: of those that are not seen to be worse there than the best one, "
    "the fastest at one text; of equally fast ones the smallest, then the best."
)

MOST_TASKS = 3
"""Tasks that the first sentence names; the others are in the table below it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The student to ship, None where there is none to recommend; `split` says on which split it was chosen.

    `sentence` is what is said of a choice by the rule of `evaluation.shipping`, else empty.
    """

    student: ModelResults | None
    split: str
    sentence: str = ""


def choose(part: Part, judged: Sequence[Judged], opinions: Mapping[str, Opinion]) -> Choice:
    """The student that is best on dev (else on the headlines of the test split), if it is no worse than its start."""
    if distils_a_task(part.results):
        shipped = ship(part.results)
        return Choice(shipped.student, "dev", shipped.sentence)
    able = [student for student in _students(part) if not opinions[student.name].got_worse]
    if not able:
        return Choice(None, "dev")
    by_dev = {student.name: _dev_divergence(student) for student in able}
    if all(math.isfinite(value) for value in by_dev.values()):
        return Choice(min(able, key=lambda student: by_dev[student.name]), "dev")
    return Choice(max(able, key=lambda student: _wins(student.name, [s.name for s in able], judged)), "test")


def verdict(part: Part, judged: Sequence[Judged], choice: Choice, opinions: Mapping[str, Opinion]) -> tuple[str, ...]:
    """A sentence or two a line: the answer, what to think of each student, and how the choice was made."""
    students = _students(part)
    if not students:
        return ("There is no student to ship: none was trained.",)
    sentences = [opinions[student.name].sentence for student in students]
    if choice.sentence:
        return (choice.sentence, *sentences, *([RULE] if len(students) > 1 else []))
    if choice.student is None:
        worse = "every one of them got worse than the untouched student that it started from"
        return (f"Ship none of these students: {worse}.", *sentences)
    headlines = [each for each in judged if each.quality.headline]
    if not headlines:
        names = ", ".join(student.name for student in students)
        return (f"Nothing was measured by which {names} could be told apart.", *sentences)
    return (_first(part, choice.student, headlines), *sentences, *_how_chosen(choice.student, choice.split, students))


def _students(part: Part) -> list[ModelResults]:
    return [model for model in part.results.models if model.role == "student"]


def _how_chosen(student: ModelResults, split: str, students: Sequence[ModelResults]) -> list[str]:
    if split == "test":
        return [
            f"{student.name} was chosen on the test split itself, as the students have no common measurement on dev: "
            "its numbers are a little too good."
        ]
    if len(students) > 1:
        return [f"{student.name} was chosen by its divergence from the teacher on the dev split."]
    return []


def _first(part: Part, student: ModelResults, headlines: Sequence[Judged]) -> str:
    teacher = next((model for model in part.results.models if model.role == "teacher"), None)
    known = [each for each in headlines if student.name in each.estimates]
    tasks = [each for each in known if each.quality.task is not None][:MOST_TASKS]
    divergence = [each for each in known if each.quality.metric.name == "forward_kl"]
    numbers = [f"{each.quality.title} {_beside(each, student, teacher)}" for each in tasks]
    whose = "teachers" if part.results.held_against else "teacher"
    numbers += [f"{_number(each, student)} nats from its {whose}" for each in divergence]
    sizes = _smaller(student, teacher)
    return f"Ship {student.name}: " + "; ".join([*numbers, *sizes]) + "."


def _beside(judged: Judged, student: ModelResults, teacher: ModelResults | None) -> str:
    if teacher is None or teacher.name not in judged.estimates:
        return _number(judged, student)
    return f"{_number(judged, student)} (teacher {_number(judged, teacher)})"


def _number(judged: Judged, model: ModelResults) -> str:
    return written(judged.estimates[model.name].value, judged.quality.metric.unit)


def _smaller(student: ModelResults, teacher: ModelResults | None) -> list[str]:
    """How much less than the teacher it takes, as far as both were measured on one machine."""
    if teacher is None:
        return []
    found = []
    if student.parameters and teacher.parameters > student.parameters:
        found.append(f"{teacher.parameters / student.parameters:.2g} times fewer parameters")
    own, theirs = _throughput(student), _throughput(teacher)
    if own is not None and theirs is not None and own[:2] == theirs[:2] and theirs[2] > 0:
        found.append(f"{own[2] / theirs[2]:.2g} times the tokens a second")
    return found


def _throughput(model: ModelResults) -> tuple[str, int, float] | None:
    """Machine, largest batch, and tokens a second with it."""
    if model.serving is None or not model.serving.speeds:
        return None
    speed = max(model.serving.speeds, key=lambda speed: speed.batch)
    return model.serving.measured_on, speed.batch, speed.tokens_per_s.median


def _dev_divergence(student: ModelResults) -> float:
    points = student.training.curves.get(DEV, ()) if student.training else ()
    return min((value for _, value in points if math.isfinite(value)), default=math.nan)


def _wins(name: str, others: Sequence[str], judged: Sequence[Judged]) -> int:
    """In how many headlines no other student has a better number."""
    won = 0
    for each in judged:
        values = {other: each.estimates[other].value for other in others if other in each.estimates}
        if each.quality.headline and math.isfinite(values.get(name, math.nan)):
            sign = 1.0 if each.quality.metric.better == "higher" else -1.0
            won += all(sign * value <= sign * values[name] for value in values.values() if math.isfinite(value))
    return won
