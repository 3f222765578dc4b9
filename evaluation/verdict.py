"""What to think of each student, in one sentence: what it is good for, what not, and whether it was worth its method.

A student is held against the model that it started from and against students of simpler methods, on the same answers
and examples (`evaluation.statistics`): what is said to be better or worse was seen, and where nothing was seen, the
sentence says so. Whether it is good enough for a task is a judgement, and the limits below are its whole content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.closeness import measured
from evaluation.metric import Measured
from evaluation.qualities import DIVERGENCES, WORDS, Quality, qualities
from evaluation.results import ModelResults, RunResults
from evaluation.statistics import (
    Difference,
    Resampling,
    change_in_words,
    compare_pairs,
    in_words,
    number_in_words,
)

METHODS = ("hard_labels", "sft", "seqkd", "kd", "uld", "span_likelihood", "minillm")
"""Objectives from the simplest to the most involved; any other counts as more involved than all of them."""

GOLD_ALONE, AUGMENTED_ALONE = "-gold", "-augmented"
"""End the name of a student that was trained without a teacher, to be compared with the one of the name before: on gold
labels alone, and on those of augmented texts too."""

WITHOUT_TEACHER = {GOLD_ALONE: "gold labels alone", AUGMENTED_ALONE: "gold labels of augmented texts alone"}
"""What such students learned, in words, by how their names end."""

CLOSE_NATS, CLOSE_TOP1 = 0.5, 0.7
"""A student this close to its teacher's next tokens can stand in for it where nothing else was measured."""

KEPT_WELL, KEPT_BADLY = 0.9, 0.5
"""Parts of the teacher's lead over the best constant answer: from the first on good for a task, below the other not."""

USES = ("good for", "a compromise for", "not for", "undecided for")
"""What a student is for a task; between good and bad it does part of what its teacher does, at its own price. Where the
teacher itself has no lead, the task cannot tell."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What to think of a student, in one sentence.

    It `got_worse` when it is worse than its start in something, and better in nothing.
    """

    sentence: str
    got_worse: bool


def verdicts(results: RunResults, *, how: Resampling | None = None) -> dict[str, Opinion]:
    """What to think of each student, by name: the terminal, the page and the tracker say it in these words."""
    return opinions_of(results.models, qualities(results, how=how))


def opinions_of(models: Sequence[ModelResults], by: Sequence[Quality]) -> dict[str, Opinion]:
    """What to think of each student, by name, from what models were measured by; a table's marks rest on the same."""
    teacher = next((model.name for model in models if model.role == "teacher"), None)
    students = [model for model in models if model.role == "student"]
    ways = [each for each in by if each.task is None and each.metric.name in DIVERGENCES]
    ways += [each for each in by if each.task is None and each.metric.name == WORDS and each.headline]
    ways += [each for each in by if each.task is not None and each.headline]
    beyond = [(way, twin, beyond_twin(students, way, twin=twin)) for way in ways for twin in WITHOUT_TEACHER]
    found = {}
    for student in students:
        beside_start = _against_start(student, students, ways)
        parts = [
            *_uses(student, teacher, ways),
            _start(student, beside_start),
            *(
                distillation_in_words(student.name, each[student.name], way, twin=twin)
                for way, twin, each in beyond
                if student.name in each
            ),
            _simpler(student, students, ways),
        ]
        said = "; ".join(filter(None, parts)) or "nothing of it could be measured"
        seen = {difference.verdict for difference in beside_start.values()}
        found[student.name] = Opinion(f"{student.name}: {said}.", "worse" in seen and "better" not in seen)
    return found


def gold_twin(student: str) -> str:
    """What the student is called that was trained on gold labels alone and is else the same."""
    return f"{student}{GOLD_ALONE}"


def learned_without_teacher(student: str) -> str:
    """What such a student learned, in words; empty for any other."""
    return next((learned for end, learned in WITHOUT_TEACHER.items() if student.endswith(end)), "")


def beyond_twin(students: Sequence[ModelResults], way: Quality, *, twin: str = GOLD_ALONE) -> Mapping[str, Difference]:
    """What sets each student apart from the one without a teacher whose name ends so, corrected over all of them."""
    pairs = {
        student.name: (way.measured[f"{student.name}{twin}"], way.measured[student.name])
        for student in students
        if {student.name, f"{student.name}{twin}"} <= way.measured.keys()
    }
    return compare_pairs({name: pair for name, pair in pairs.items() if _same_rows(*pair)}, way.how)


def distillation_in_words(student: str, difference: Difference, way: Quality, *, twin: str = GOLD_ALONE) -> str:
    """What distillation adds to learning without a teacher."""
    said, over = in_words(difference, way.metric), f"{WITHOUT_TEACHER[twin]} ({student}{twin})"
    if difference.verdict == "better":
        return f"distillation adds {said.removeprefix('better by ')} over {over}"
    return f"distillation against {over}: {said}"


def _same_rows(one: Measured, other: Measured) -> bool:
    return one.sums.shape == other.sums.shape


def _against_start(
    student: ModelResults, students: Sequence[ModelResults], ways: Sequence[Quality]
) -> dict[Quality, Difference]:
    """A student against its start; the correction is over the students of one start."""
    if student.start is None:
        return {}
    siblings = [each.name for each in students if each.start == student.start]
    found = {way: way.against(student.start, siblings) for way in ways}
    return {way: each[student.name] for way, each in found.items() if student.name in each}


def _uses(student: ModelResults, teacher: str | None, ways: Sequence[Quality]) -> list[str]:
    """What it is good for and what not: tasks where there are any, else its teacher's next tokens."""
    tasks: dict[str, list[str]] = {}
    for way in ways:
        if way.floor is None or teacher is None or not {student.name, teacher} <= way.measured.keys():
            continue
        ours, theirs = way.measured[student.name].value, way.measured[teacher].value
        use, because = _use(ours, theirs, floor=way.floor)
        if use:
            shown = number_in_words(ours, way.metric.unit)
            tasks.setdefault(use, []).append(f"{way.title} ({shown}, {because})")
    return [f"{use} {' and '.join(tasks[use])}" for use in USES if use in tasks] or _nearness(student)


def _use(ours: float, theirs: float, *, floor: float) -> tuple[str, str]:
    """One of `USES` and the reason; two empty strings where a number is undefined."""
    good, middling, bad, unclear = USES
    if any(map(math.isnan, (ours, theirs, floor))):
        return "", ""
    if ours <= floor:
        return bad, "no better than a constant answer"
    if theirs <= floor:
        return unclear, "above a constant answer, which its teacher is not"
    kept = round((ours - floor) / (theirs - floor), 9)  # so that half of a lead is half of it
    use = good if kept >= KEPT_WELL else bad if kept < KEPT_BADLY else middling
    return use, f"{kept:.0%} of the teacher's lead over a constant answer"


def _nearness(student: ModelResults) -> list[str]:
    numbers = {} if student.closeness is None else measured(student.closeness)
    if not {"forward_kl", "top1_agreement"} <= numbers.keys():
        return []
    nats, top1 = numbers["forward_kl"].value, numbers["top1_agreement"].value
    where = f"{nats:.2f} nats, {top1:.0%} of its next tokens"
    if nats <= CLOSE_NATS and top1 >= CLOSE_TOP1:
        return [f"good for answers in its teacher's manner ({where})"]
    return [f"not a stand-in for its teacher ({where}), good for a draft that somebody checks"]


def _start(student: ModelResults, found: Mapping[Quality, Difference]) -> str:
    worse = [way for way, difference in found.items() if difference.verdict == "worse"]
    better = [way for way, difference in found.items() if difference.verdict == "better"]
    if worse:
        return f"worse than its start in {_listed(worse, found)}" + (
            f", better in {_listed(better, found)}" if better else ""
        )
    if better:
        return f"better than its start in {_listed(better, found)}"
    if found:
        way, difference = next(iter(found.items()))
        return f"against its start, {in_words(difference, way.metric)}"
    return ""


def _listed(ways: Sequence[Quality], found: Mapping[Quality, Difference]) -> str:
    return ", ".join(f"{way.title} ({change_in_words(found[way].estimate, way.metric.unit)})" for way in ways)


def _simpler(student: ModelResults, students: Sequence[ModelResults], ways: Sequence[Quality]) -> str:
    """The first simpler method that this student does not beat in anything, at no greater size.

    Holm's correction is over all students that are held against that one, as in the table's marks.
    """
    # What is said of learning without a teacher is said already.
    rivals = [
        rival
        for rival in students
        if _involved(rival) < _involved(student)
        and rival.parameters <= student.parameters
        and rival.name not in {f"{student.name}{twin}" for twin in WITHOUT_TEACHER}
    ]
    for rival in sorted(rivals, key=_involved):
        others = [each.name for each in students if each.name != rival.name]
        found = [way.against(rival.name, others) for way in ways]
        verdicts = [each[student.name].verdict for each in found if student.name in each]
        if verdicts and not {"better", "undefined"} & set(verdicts):
            how_far = "beaten" if "worse" in verdicts else "equalled"
            return f"{how_far} by {rival.name}, whose method is simpler ({rival.method}, no more parameters)"
    return ""


def _involved(model: ModelResults) -> tuple[int, int]:
    """The most involved objective of its stages, then their number."""
    stages = model.method.split(", ")
    return max(METHODS.index(stage) if stage in METHODS else len(METHODS) for stage in stages), len(stages)
