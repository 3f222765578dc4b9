"""The privacy audit of a student of a task that knows its training rows by heart, and of one that learned a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audited_runs import Unseen, found_in
from audited_task_runs import BY_FIRST_WORD, MANY, LearningWorkers, audited_task_run, bag, chance_rows, mood_rows

from evaluation.side_effects.findings import Audit
from orchestration.audits.kinds import KINDS
from orchestration.audits.opening import open_audited
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun

(PRIVACY,) = (kind for kind in KINDS if kind.name == "privacy")


def audited(run: FinishedTaskRun, *, rows: int = 256) -> Audit:
    return PRIVACY.make(run, AuditSettings(rows=rows), Unseen())


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    """Labels that nothing says, learned to the last; and a student that learned what the teacher believes."""
    counts = {"train": 150, "dev": 120, "test": 150, "transfer": 150}
    rows = {name: chance_rows(count, seed=at) for at, (name, count) in enumerate(counts.items())}
    students = {"gold": bag(), "taught": bag({"objective": "soft_labels", "data": ["train", "transfer"]})}
    directory = audited_task_run(
        tmp_path_factory.mktemp("by-heart"),
        rows,
        students=students,
        workers=LearningWorkers(steps=200),
        labels=MANY,
        says=BY_FIRST_WORD,
        evaluation={"gold_baseline": False},
    )
    run = open_audited(directory)
    assert isinstance(run, FinishedTaskRun)
    return run


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    """A student whose training taught it nothing."""
    counts = {"train": 120, "dev": 60, "test": 120}
    rows = {name: mood_rows(count, seed=10 + at) for at, (name, count) in enumerate(counts.items())}
    place = tmp_path_factory.mktemp("unlearned")
    run = open_audited(audited_task_run(place, rows, students={"gold": bag()}, workers=LearningWorkers(steps=0)))
    assert isinstance(run, FinishedTaskRun)
    return run


@pytest.mark.parametrize(
    ("model", "instrument"),
    [
        ("gold", "membership: loss"),
        ("gold", "membership: confidence"),
        ("gold", "membership: against the teacher"),
        ("taught", "membership (labelled rows): loss on the teacher's belief"),
        ("taught", "membership (unlabelled rows): loss"),
        ("taught", "membership (unlabelled rows): against the teacher"),
    ],
)
def test_what_was_learned_by_heart_is_told_and_not_by_the_teacher(
    by_heart: FinishedTaskRun, model: str, instrument: str
) -> None:
    area = found_in(audited(by_heart), instrument, model=model)
    assert area.value.value > 0.9 and area.value.interval.low > 0.85
    if "against the teacher" not in instrument:
        assert area.teacher is not None and 0.4 < area.teacher.value < 0.6
        assert area.difference is not None and area.difference.interval.low > 0.25


def test_rows_are_found_without_false_alarms(by_heart: FinishedTaskRun) -> None:
    rate = found_in(audited(by_heart), "membership (unlabelled rows): loss, found at 1 % false alarms", model="taught")
    assert rate.value.value > 0.9 and rate.teacher is not None and rate.teacher.value < 0.05


@pytest.mark.parametrize("score", ["loss", "confidence", "against the teacher"])
def test_of_a_student_that_learned_nothing_nothing_can_be_told(unlearned: FinishedTaskRun, score: str) -> None:
    area = found_in(audited(unlearned), f"membership: {score}", model="gold")
    assert area.value.interval.low <= 0.5 <= area.value.interval.high


def test_what_does_not_apply_or_cannot_be_asked_is_said(unlearned: FinishedTaskRun) -> None:
    audit = audited(unlearned, rows=50)
    words = found_in(audit, "verbatim, canaries", model="every student")
    assert words.unknown is not None and "they do not apply: students of this task give labels" in words.unknown
    start = found_in(audit, "membership: against the start", model="gold")
    assert start.unknown == "what it began as had no head for this task"
    rate = found_in(audit, "membership: loss, found at 1 % false alarms", model="gold")
    assert rate.unknown == "1 % of 50 held-out rows is less than one row: it takes 100"
    assert "gold: membership was asked of 50 training rows and as many held-out rows of the same labels" in " ".join(
        audit.notes
    )


def test_a_student_whose_lessons_are_gone_costs_the_others_nothing(by_heart: FinishedTaskRun) -> None:
    gold, taught = by_heart.students
    gone = replace(gold, stages=(replace(gold.stages[0], train="0" * 64),))
    audit = audited(replace(by_heart, students=(gone, taught)))
    lost = found_in(audit, "membership", model="gold")
    assert lost.unknown is not None and "what it learned from (0000000000000000) is not in" in lost.unknown
    assert found_in(audit, "membership (unlabelled rows): loss", model="taught").unknown is None


def test_it_rests_on_models_answers_lessons_and_settings(by_heart: FinishedTaskRun) -> None:
    rests_on = PRIVACY.rests_on(by_heart, AuditSettings())
    assert {"model of gold", "answers of taught", "task", "lessons of gold", "settings"} <= set(rests_on)
    assert PRIVACY.rests_on(by_heart, AuditSettings(rows=7))["settings"] != rests_on["settings"]
