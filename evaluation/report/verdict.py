"""The verdict in words: which student to ship, what it is worth, and which students were not worth their training.

The student is chosen on the dev split, by the divergence from the teacher at the end of its training; where that was
not measured of all students, on the test split, which is said: the numbers of what was chosen by them are too good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.report.judged import Baseline, Judged, simplest
from evaluation.report.merging import Part
from evaluation.report.numbers import change, written
from evaluation.results import ModelResults

BASELINES: tuple[Baseline, ...] = ("teacher", "start", "simplest")

DEV = "dev/forward_kl"
"""The curve by which students are chosen; its lowest point is the student that was kept."""


MOST_TASKS = 3
"""Tasks that the first sentence names; the others are in the table below it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The student to ship, None where there is none to recommend; `split` says on which split it was chosen."""

    student: ModelResults | None
    split: str


def choose(part: Part, judged: Sequence[Judged]) -> Choice:
    """The student that is best on dev (else on the headlines of the test split), if it is no worse than its start."""
    students = [model for model in part.results.models if model.role == "student"]
    able = [student for student in students if not _got_worse(student.name, judged)]
    if not able:
        return Choice(None, "dev")
    by_dev = {student.name: _dev_divergence(student) for student in able}
    if all(math.isfinite(value) for value in by_dev.values()):
        return Choice(min(able, key=lambda student: by_dev[student.name]), "dev")
    return Choice(max(able, key=lambda student: _wins(student.name, [s.name for s in able], judged)), "test")


def verdict(part: Part, judged: Sequence[Judged], choice: Choice) -> tuple[str, ...]:
    """A sentence or two a line; the first is the answer."""
    headlines = [each for each in judged if each.quality.headline]
    students = [model for model in part.results.models if model.role == "student"]
    if not students:
        return ("There is no student to ship: none was trained.",)
    if choice.student is None:
        return (
            "Ship none of these students: every one of them got worse than the untouched student that it started from.",
            *(_against(student.name, "start", headlines) for student in students),
        )
    if not headlines:
        return (f"Nothing was measured by which {_names(students)} could be told apart.",)
    name = choice.student.name
    lines = [_first(part, choice.student, headlines)]
    lines += filter(None, (_against(name, baseline, headlines) for baseline in BASELINES))
    lines += [line for student in students if student.name != name for line in _warnings(student, part, headlines)]
    if choice.split == "test":
        lines.append(
            f"{name} was chosen on the test split itself, as the students have no common measurement on dev: its "
            "numbers are a little too good."
        )
    elif len(students) > 1:
        lines.append(f"{name} was chosen by its divergence from the teacher on the dev split.")
    return tuple(lines)


def _first(part: Part, student: ModelResults, headlines: Sequence[Judged]) -> str:
    teacher = next((model for model in part.results.models if model.role == "teacher"), None)
    known = [each for each in headlines if student.name in each.estimates]
    tasks = [each for each in known if each.quality.task is not None][:MOST_TASKS]
    divergence = [each for each in known if each.quality.metric.name == "forward_kl"]
    numbers = [f"{each.quality.title} {_beside(each, student, teacher)}" for each in tasks]
    numbers += [f"{_number(each, student)} nats from its teacher" for each in divergence]
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


def _against(name: str, baseline: Baseline, headlines: Sequence[Judged]) -> str:
    """What sets a student apart from a baseline in the headlines; empty where it was not held against it."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "no difference seen": []}
    other = ""
    for each in headlines:
        held = each.against(name, baseline)
        if held is None or held.difference.verdict not in groups:
            continue
        other = held.name
        groups[held.difference.verdict].append(_with_reach(each, held.difference.detectable, held.difference.verdict))
    told = {kind: found for kind, found in groups.items() if found}
    everywhere = len(told) == 1 and "no difference seen" not in told and sum(map(len, told.values())) > 1
    parts = [
        f"{kind} in all {len(found)} measures" if everywhere else f"{kind} in {', '.join(found)}"
        for kind, found in told.items()
    ]
    if not parts:
        return ""
    whom = {"teacher": "its teacher", "start": f"its own start ({other})", "simplest": f"the simpler method {other}"}
    return f"{name} against {whom[baseline]}: {'; '.join(parts)}."


def _with_reach(judged: Judged, detectable: float, verdict: str) -> str:
    title, unit = judged.quality.title, judged.quality.metric.unit
    if verdict != "no difference seen":
        return title
    reach = (
        f"{change(detectable, unit).removeprefix('+')} would be" if math.isfinite(detectable) else "too few to see any"
    )
    n = next(iter(judged.estimates.values())).n
    return f"{title} (n = {n}, {reach})"


def _warnings(student: ModelResults, part: Part, headlines: Sequence[Judged]) -> list[str]:
    """Whether another student got worse than its start, or is equalled or beaten by a simpler method."""
    found = []
    worse = _titles(student.name, "start", "worse", headlines)
    if worse:
        found.append(f"{student.name} got worse than its own start in {', '.join(worse)}.")
    simple = simplest(part)
    better = _titles(student.name, "simplest", "better", headlines)
    compared = any(each.against(student.name, "simplest") for each in headlines)
    if simple is not None and compared and not better:
        lost = _titles(student.name, "simplest", "worse", headlines)
        found.append(
            f"{student.name} is beaten by the simpler method {simple.name} in {', '.join(lost)}."
            if lost
            else f"{student.name} is not seen to be better than the simpler method {simple.name} in anything."
        )
    return found


def _titles(name: str, baseline: Baseline, verdict: str, headlines: Sequence[Judged]) -> list[str]:
    return [
        each.quality.title
        for each in headlines
        if (held := each.against(name, baseline)) is not None and held.difference.verdict == verdict
    ]


def _got_worse(name: str, judged: Sequence[Judged]) -> bool:
    """Worse than its start in something, and better in nothing."""
    return bool(_titles(name, "start", "worse", judged)) and not _titles(name, "start", "better", judged)


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


def _names(models: Sequence[ModelResults]) -> str:
    return ", ".join(model.name for model in models)
