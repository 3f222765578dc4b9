"""The bias audit of students whose training labels depended on a gender, and of one whose labels did not."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from audited_runs import Unseen, found_in
from audited_task_runs import audited_task_run, bag, mood_rows

from evaluation.side_effects.findings import Audit
from orchestration.audits.kinds import KINDS, audit_run
from orchestration.audits.opening import open_audited
from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.outputs.console import Console

(BIAS,) = (kind for kind in KINDS if kind.name == "bias")


def audited(run: FinishedTaskRun, *groups: str, rows: int = 256) -> Audit:
    return BIAS.make(run, AuditSettings(rows=rows, groups=groups), Unseen())


def opened(root: Path, *, biased: bool) -> FinishedTaskRun:
    rows = {
        "train": mood_rows(120, seed=0, biased=biased),
        "dev": mood_rows(20, seed=1, biased=biased),
        "test": mood_rows(120, seed=2),
    }
    run = open_audited(audited_task_run(root, rows, students={"bag": bag()}))
    assert isinstance(run, FinishedTaskRun)
    return run


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    return opened(tmp_path_factory.mktemp("biased"), biased=True)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    return opened(tmp_path_factory.mktemp("clean"), biased=False)


def test_labels_that_depended_on_a_gender_are_found_and_the_teacher_has_none_of_it(biased: FinishedTaskRun) -> None:
    audit = audited(biased, "gender")
    for instrument in ("accuracy", "share of good", "recall of good"):
        apart = found_in(audit, f"gender=m against f: {instrument}", model="bag")
        assert apart.value.value > 0.25 and apart.value.interval.low > 0.0
        assert apart.teacher is not None and apart.teacher.value == 0.0
        assert apart.difference is not None and apart.difference.interval.low > 0.0
    assert found_in(audit, "gender=f: accuracy", model="bag").value.value < 0.8
    changes = found_in(audit, "swapped texts: answer changes", model="bag")
    assert changes.value.value > 0.25 and changes.teacher is not None and changes.teacher.value == 0.0
    assert found_in(audit, "swapped texts: probability", model="bag").value.interval.low > 0.1


def test_without_it_every_difference_may_be_none(clean: FinishedTaskRun) -> None:
    audit = audited(clean, "gender")
    apart = [each for each in audit.findings if " against " in each.instrument]
    assert {each.model for each in apart} == {"bag"} and len(apart) == 4
    assert all(each.value.interval.low <= 0.0 <= each.value.interval.high for each in apart)
    assert found_in(audit, "swapped texts: answer changes", model="bag").value.value <= 0.05


def test_what_could_have_been_seen_and_what_was_right_is_said(clean: FinishedTaskRun) -> None:
    notes = " ".join(audited(clean, "gender").notes)
    assert "groups by gender: 60 gender=f, 60 gender=m test rows" in notes
    assert "would be seen four times of five" in notes
    assert "gold labels of gender=m and of f differ in 0.0% of the rows" in notes
    assert "120 of 120 test texts name somebody" in notes


def test_what_cannot_be_looked_at_is_said(clean: FinishedTaskRun) -> None:
    nothing = found_in(audited(clean), "outcomes by group", model="every student")
    assert nothing.unknown is not None and "name one by audit.groups in the configuration" in nothing.unknown
    wrong = found_in(audited(clean, "age"), "outcomes by age", model="every student")
    assert wrong.unknown is not None and "no test row says age: name one of their fields (text, label, gender)" in (
        wrong.unknown
    )
    few = found_in(audited(clean, rows=5), "swapped texts: answer changes", model="bag")
    assert few.unknown == "5 of the 120 test texts name somebody, and it takes 6"


def test_it_rests_on_what_rows_say_of_their_group(clean: FinishedTaskRun) -> None:
    without, by = (BIAS.rests_on(clean, AuditSettings(groups=groups)) for groups in ((), ("gender",)))
    assert without["rows by group"] != by["rows by group"] and without["settings"] != by["settings"]
    first = audit_run(clean, BIAS, settings=AuditSettings(groups=("gender",)), console=Console(io.StringIO()))
    assert first.rests_on == by


def test_a_teacher_that_cannot_be_asked_costs_its_column_alone(clean: FinishedTaskRun) -> None:
    audit = audited(replace(clean, teacher=None, why_no_teacher="it is elsewhere"), "gender")
    changes = found_in(audit, "swapped texts: answer changes", model="bag")
    assert changes.unknown is None and changes.teacher is None
    # What it answered stands in the comparison.
    assert found_in(audit, "gender=f: accuracy", model="bag").teacher is not None
    assert "the teacher was not asked about any text anew: it is elsewhere" in audit.notes
