"""What is asked about a student's rows: pairs of the same label, by whoever can be asked, or why nobody can."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from audited_task_runs import LearningWorkers, audited_task_run, mood_rows
from task_pipeline_builders import STAGE

from orchestration.audits.opening import open_audited
from orchestration.audits.tasks.beliefs import LabelBeliefs
from orchestration.audits.tasks.finished import FinishedTaskRun
from orchestration.audits.tasks.learned import learned_rows
from orchestration.audits.tasks.membership import Asked, about_rows, asked_rows, membership_findings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedTaskRun:
    rows = {name: mood_rows(count, seed=count) for name, count in {"train": 40, "dev": 12, "test": 16}.items()}
    stage = STAGE | {"epochs": 1.0, "data": ["train"], "batch_size": 40}
    students = {"encoder": {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [stage]}}
    place = tmp_path_factory.mktemp("membership")
    found = open_audited(audited_task_run(place, rows, students=students, workers=LearningWorkers(steps=3)))
    assert isinstance(found, FinishedTaskRun)
    return found


def asked(run: FinishedTaskRun, beliefs: LabelBeliefs, *, pairs: int = 99) -> Asked:
    (one,) = asked_rows(learned_rows(run.students[0], run, beliefs), kind="classification", pairs=pairs)
    return one


def test_rows_stand_beside_held_out_ones_of_their_label(run: FinishedTaskRun) -> None:
    beliefs = LabelBeliefs(run.task.config, "cpu")
    rows = asked(run, beliefs)
    labels = [row.read.gold[0] for row in rows.rows]
    assert rows.members == 28 and Counter(labels[:28]) == Counter(labels[28:])
    assert asked(run, beliefs, pairs=6).members == 6
    assert about_rows(rows).startswith("membership was asked of 28 training rows and as many held-out rows")


def test_a_start_that_knows_the_task_and_the_teacher_are_asked_the_same(run: FinishedTaskRun) -> None:
    beliefs = LabelBeliefs(run.task.config, "cpu")
    found = {
        each.instrument: each
        for each in membership_findings(run.students[0], asked(run, beliefs), run=run, beliefs=beliefs)
    }
    assert len(found) == 10
    for name in ("loss", "confidence", "loss on the teacher's belief"):
        each = found[f"membership: {name}"]
        assert each.unknown is None and each.teacher is not None and each.untouched is not None
    start = found["membership: against the start"]
    assert start.unknown is None and start.untouched is None and start.teacher is not None


def test_without_the_teachers_weights_only_what_was_kept_is_known(run: FinishedTaskRun) -> None:
    beliefs, lost = LabelBeliefs(run.task.config, "cpu"), replace(run, teacher=None, why_no_teacher="it is elsewhere")
    rows = asked(run, beliefs)
    found = {each.instrument: each for each in membership_findings(run.students[0], rows, run=lost, beliefs=beliefs)}
    why = "what the teacher believes of held-out rows is not kept, and it is elsewhere"
    assert found["membership: against the teacher"].unknown == why
    assert found["membership: loss on the teacher's belief"].unknown == why
    loss = found["membership: loss"]
    assert loss.unknown is None and loss.teacher is None and loss.untouched is not None
    # Of rows that its students were taught on, and chosen by, the lessons hold what it believes.
    kept = [row for row in rows.rows if row.taught is not None]
    few = replace(rows, rows=(*kept[:4], *kept[-4:]))
    named = {each.instrument: each for each in membership_findings(run.students[0], few, run=lost, beliefs=beliefs)}
    assert named["membership: against the teacher"].unknown is None


def test_without_held_out_rows_of_its_labels_it_is_not_known(run: FinishedTaskRun) -> None:
    beliefs = LabelBeliefs(run.task.config, "cpu")
    nothing = replace(asked(run, beliefs), rows=())
    found = membership_findings(run.students[0], nothing, run=run, beliefs=beliefs)
    assert {each.unknown for each in found} == {"no held-out row has a label of its training rows"}
