"""Which student of a task to ship, in one sentence. A rule chooses, on dev; what is then said of it is of test.

The rule: of the students that are not seen to be worse than the best one on dev, the fastest at one text; students
whose times overlap count as equally fast, and of these the smallest is taken, then the best on dev. Where times are not
known of all of them, size decides. A few rows of dev do not tell the best one from a useless one: those that are not
seen to be better than a constant answer there are left out, unless all are. Students that were trained without a
teacher take part: where nothing is gained by one, nothing is said to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.analysis.retention import Retention, retention
from evaluation.metric import Measured
from evaluation.qualities import Quality, qualities
from evaluation.results import DevScores, ModelResults, RunResults, Serving, TaskFacts
from evaluation.serving import text_batches, text_speed, times_faster, times_smaller
from evaluation.statistics import Resampling, compare_models, estimate, in_words, number_in_words
from evaluation.tasks.measuring import measure_one
from evaluation.verdict import (
    KEPT_WELL,
    WITHOUT_TEACHER,
    beyond_twin,
    distillation_in_words,
    learned_without_teacher,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a choice weighs against quality: parameters, and the times a text took at batch 1 (none: not known)."""

    parameters: int
    serving: Serving | None

    @property
    def text_s(self) -> tuple[float, ...]:
        """Seconds a text, one value a round."""
        speeds = () if self.serving is None else self.serving.texts
        return next((speed.text_s for speed in speeds if speed.batch == 1), ())


@dataclass(frozen=True, slots=True)
class Shipped:
    """The student that was chosen, None where there is none to ship, and what is said of the choice."""

    student: ModelResults | None
    sentence: str


def distils_a_task(results: RunResults) -> bool:
    """Whether a run is of an experiment that distils a task: its models were not asked any prompts."""
    return not results.prompts and len(results.tasks) == 1


def chosen_on_dev(
    dev: Mapping[str, DevScores], costs: Mapping[str, Cost], *, facts: TaskFacts, how: Resampling | None = None
) -> str | None:
    """The student to ship, by the rule above; None where no student has a number on dev."""
    measured = {name: measure_one(facts, scores.examples) for name, scores in dev.items() if scores.examples}
    sign = 1.0 if next((m.metric.better for m in measured.values()), "higher") == "higher" else -1.0
    values = {name: sign * each.value for name, each in measured.items() if math.isfinite(each.value)}
    if not values:
        return None
    best = max(values, key=lambda name: values[name])
    able = _not_worse(best, {name: measured[name] for name in values}, how)
    able = [name for name in able if _beats_constant(measured[name], facts, how)] or able
    times = {name: costs[name].text_s for name in able}
    if all(times.values()) and len({_measured_on(costs[name]) for name in able}) == 1:
        fastest = min(able, key=lambda name: sum(times[name]) / len(times[name]))
        able = [name for name in able if min(times[name]) <= max(times[fastest])]
    return min(able, key=lambda name: (costs[name].parameters, -values[name], bool(learned_without_teacher(name))))


def ship(results: RunResults, *, how: Resampling | None = None) -> Shipped:
    """The student of a task to ship."""
    facts, students = results.tasks[0], [model for model in results.models if model.role == "student"]
    way = next((each for each in qualities(results, how=how) if each.task == facts.name and each.headline), None)
    dev = {student.name: scores for student in students for scores in student.dev if scores.task == facts.name}
    costs = {student.name: Cost(student.parameters, student.serving) for student in students}
    name = chosen_on_dev(dev, costs, facts=facts, how=how)
    student = next((each for each in students if each.name == name), None)
    if not students:
        return Shipped(None, "There is no student to ship: none was trained, or none answered.")
    if student is None or way is None or student.name not in way.measured:
        return Shipped(None, "No student can be chosen: none has a number on the dev split.")
    ours = estimate(way.measured[student.name], way.how)
    scored = f"{number_in_words(ours.value, way.metric.unit)} {_metric(facts)}"
    floor = number_in_words(facts.baseline, way.metric.unit)
    if math.isfinite(facts.baseline) and not _above(ours.interval.low, ours.value, facts.baseline):
        return Shipped(
            None,
            f"Ship none of these students: the best choice on dev, {student.name}, is not seen to be better on test "
            f"than {constant_answer(facts)} ({scored} against {floor}).",
        )
    teacher = next((model for model in results.models if model.role == "teacher"), None)
    if teacher is None or teacher.name not in way.measured:
        gold = _gold(student, students, way)
        return Shipped(student, f"Ship {student.name}: {scored}; there is no teacher to hold it against.{gold}")
    return _beside_teacher(student, teacher, students, way=way, facts=facts)


def constant_answer(facts: TaskFacts) -> str:
    """What the baseline of a task is, in words."""
    return "the majority class" if facts.kind == "classification" else "the best constant answer"


def kept_in_words(kept: Retention) -> str:
    """Such as "97 % (95 % CI 95 to 99)"."""
    if not math.isfinite(kept.value):
        return "nothing, as the teacher scores nothing"
    bounds = kept.interval
    between = f" (95 % CI {100 * bounds.low:.0f} to {100 * bounds.high:.0f})" if math.isfinite(bounds.low) else ""
    return f"{100 * kept.value:.0f} %{between}"


def _beside_teacher(
    student: ModelResults, teacher: ModelResults, students: Sequence[ModelResults], *, way: Quality, facts: TaskFacts
) -> Shipped:
    ours, theirs = way.measured[student.name], way.measured[teacher.name]
    gold = _gold(student, students, way)
    if ours.sums.shape != theirs.sums.shape:
        return Shipped(student, f"Ship {student.name}: its teacher answered other rows, to which it is not held.{gold}")
    kept = kept_in_words(retention(theirs, ours, way.how))
    seeds = f" (mean of {student.seeds} training seeds)" if student.seeds > 1 else ""
    keeps = f"keeps {kept} of the teacher's {_metric(facts)}{seeds}"
    lead = _lead(ours.value, theirs.value, floor=facts.baseline)
    if lead is None:
        return Shipped(
            None,
            f"Ship none of these students: the teacher is no better than {constant_answer(facts)} "
            f"({number_in_words(facts.baseline, way.metric.unit)} {_metric(facts)}), so that what {student.name} "
            "takes over from it says nothing.",
        )
    if lead < KEPT_WELL:
        return Shipped(
            None,
            f"Ship none of these students as they are: the best choice on dev, {student.name}, {keeps} and "
            f"{_below(lead, KEPT_WELL)} of its lead over {constant_answer(facts)}, and {KEPT_WELL:.0%} would be enough."
            f"{gold}",
        )
    gains = [keeps, *_faster(student, teacher), *_smaller(student, teacher)]
    said = f"{', '.join(gains[:-1])} and {gains[-1]}" if len(gains) > 1 else keeps
    return Shipped(student, f"Ship {student.name}: it {said}.{gold}")


def _not_worse(best: str, measured: Mapping[str, Measured], how: Resampling | None) -> list[str]:
    """The best one, and those that are not seen to be worse on the same rows."""
    base = measured[best]
    same = {name: each for name, each in measured.items() if name != best and each.sums.shape == base.sums.shape}
    found = compare_models(base, same, how)
    return [best, *(name for name, difference in found.items() if difference.verdict == "no difference seen")]


def _beats_constant(measured: Measured, facts: TaskFacts, how: Resampling | None) -> bool:
    """Whether a student is seen to be better on dev than a constant answer is on test; where nobody knows, it is."""
    if not math.isfinite(facts.baseline):
        return True
    found = estimate(measured, how)
    return _above(found.interval.low, found.value, facts.baseline)


def _measured_on(cost: Cost) -> str:
    return "" if cost.serving is None else cost.serving.measured_on


def _metric(facts: TaskFacts) -> str:
    return facts.metric.replace("_", " ")


def _above(low: float, value: float, floor: float) -> bool:
    """Whether a number is seen to lie above another; without an interval, whether it does."""
    return low > floor if math.isfinite(low) else value > floor


def _lead(ours: float, theirs: float, *, floor: float) -> float | None:
    """What a student keeps of its teacher's lead over a constant answer; None where the teacher has none."""
    floor = floor if math.isfinite(floor) else 0.0
    return round((ours - floor) / (theirs - floor), 9) if theirs > floor else None


def _below(share: float, enough: float) -> str:
    """A share in percent that is not enough, never rounded up to what is."""
    return f"{share:.0%}" if round(share, 2) < enough else f"{math.floor(1000 * share) / 10:.1f}%"


def _faster(student: ModelResults, teacher: ModelResults) -> list[str]:
    batch = next(iter(text_batches(student)), 1)
    found = times_faster(student, teacher, batch=batch) if text_speed(student, batch) is not None else None
    if found is None:
        return []
    many = "one text" if batch == 1 else f"{batch} texts"
    return [f"answers {many} {_times(found.median, more='faster', less='slower')}"]


def _smaller(student: ModelResults, teacher: ModelResults) -> list[str]:
    ratio = times_smaller(student, teacher)
    return [f"is {_times(ratio, more='smaller', less='larger')}"] if math.isfinite(ratio) else []


def _times(ratio: float, *, more: str, less: str) -> str:
    word, value = (more, ratio) if ratio >= 1.0 else (less, 1.0 / ratio)
    return f"{value:.0f} x {word}" if value >= 9.95 else f"{value:.1f} x {word}"


def _gold(student: ModelResults, students: Sequence[ModelResults], way: Quality) -> str:
    """What learning without a teacher is worth beside it; sentences, or nothing."""
    learned = learned_without_teacher(student.name)
    if learned:
        return f" It learned from {learned}, and no distilled student is seen to be better on dev."
    return "".join(_beyond(student, students, way, twin=twin) for twin in WITHOUT_TEACHER)


def _beyond(student: ModelResults, students: Sequence[ModelResults], way: Quality, *, twin: str) -> str:
    difference = beyond_twin(students, way, twin=twin).get(student.name)
    if difference is None:
        return ""
    said, learned = distillation_in_words(student.name, difference, way, twin=twin), WITHOUT_TEACHER[twin]
    if difference.verdict == "no difference seen":
        alone = f"{learned[0].upper()}{learned[1:]} ({student.name}{twin})"
        return f" {alone} may do as well: {in_words(difference, way.metric)}."
    if difference.verdict == "worse":
        return f" On test {learned} do better: {said}."
    return f" {said[0].upper()}{said[1:]}."
