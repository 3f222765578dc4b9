"""The card of a student that is given away: its descent, what audits found of it and of no other, or that nobody looked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from descended import Descent, descended
from results_builders import finished_run

from configs.places import SUMMARY
from evaluation.side_effects.findings import EVERY_STUDENT, Audit, Finding, unknown
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval
from orchestration.commands.export_card import complete_card
from orchestration.comparison.audits import write_audit
from orchestration.comparison.report import Report, write_report
from orchestration.outputs.artifacts import STUDENT
from orchestration.outputs.foundations import RestsOn
from orchestration.outputs.kept import read_addressed, seal_directory

AUC = Estimate(0.9, Interval(0.8, 0.95, "bca", 0.0), 80)
LEAK = Finding("privacy", "membership: loss", "kd", "kd", AUC, None, None, AUC, "fraction", "50 % is a guess", None)
FRONT = "---\nlicense: other\n---\n\n# kd\n"


@pytest.fixture
def made(tmp_path: Path) -> Descent:
    return descended(tmp_path)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(FRONT)
    return path


def address(made: Descent) -> str:
    return (read_addressed(made.student / SUMMARY, schema=STUDENT) or ("", {}))[0]


def test_it_has_the_descent_and_the_findings_of_this_student_alone(made: Descent, card: Path) -> None:
    run = finished_run(prompts=2)
    models = tuple(replace(each, digest=address(made)) if each.name == "kd" else each for each in run.models)
    write_report(Report(replace(run, models=models), RestsOn({}, {}, {}, (), ()), {}), made.run)
    whole = unknown(
        audit="privacy",
        instrument="verbatim",
        model=EVERY_STUDENT,
        method="",
        unit="fraction",
        meaning="",
        why="no words",
    )
    write_audit(Audit("privacy", {}, (LEAK, replace(LEAK, model="seqkd"), whole), ()), made.run)
    complete_card(made.student, card=card)
    text = card.read_text().replace("\\", "")
    assert text.startswith(FRONT.rstrip())
    assert f"- Student: `{address(made)}`" in text and "- Learned: `views/train.npz`" in text
    assert "kd, membership: loss: 90.0 %" in text and "seqkd, membership" not in text
    assert "every student, verbatim: no words" in text
    assert "bias: was not looked at" in text


def test_a_run_that_was_not_compared_is_said(made: Descent, card: Path) -> None:
    complete_card(made.student, card=card)
    assert "nothing is known of it beside its training" in card.read_text()


def test_one_of_an_earlier_version_keeps_its_card(made: Descent, card: Path) -> None:
    seal_directory(made.student, schema=STUDENT, digest=address(made), fields={})
    complete_card(made.student, card=card)
    assert card.read_text() == FRONT
