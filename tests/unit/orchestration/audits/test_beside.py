"""Who stands beside a student, and what is said where one of them cannot be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import ModelError
from evaluation.metric import Measured, Metric
from evaluation.ratios import ratio_of
from evaluation.side_effects.paired import Instrument
from orchestration.audits.beside import findings_beside
from orchestration.audits.finished import AuditedStudent
from orchestration.comparison.finished_models import FinishedModel

SEEN = Instrument("bias", "seen", "fraction", "what is seen")


def model(name: str) -> FinishedModel:
    return FinishedModel(name, name, name, Path(name), "float32")


class Run:
    why_no_teacher_weights = None
    teacher = model("teacher")


def student() -> AuditedStudent:
    row: Any = type("Row", (), {"name": "kd", "method": "kd"})
    settings: Any = None
    return AuditedStudent(row=row, model=model("kd"), start=model("untouched"), settings=settings, selected_step=1)


def measured(share: float) -> Measured:
    rows = np.array([[1.0, 1.0]] * round(10 * share) + [[0.0, 1.0]] * round(10 * (1 - share)))
    return Measured(Metric("share", "higher", "fraction", ratio_of), rows)


@pytest.mark.parametrize("broken", ["", "teacher", "untouched", "kd"])
def test_whoever_cannot_be_asked_is_named_and_costs_the_others_nothing(broken: str) -> None:
    run: Any = Run()
    shares = {"kd": 0.9, "teacher": 0.2, "untouched": 0.5}

    def ask(asked: FinishedModel) -> dict[Instrument, Measured]:
        if asked.name == broken:
            raise ModelError("no room")
        return {SEEN: measured(shares[asked.name])}

    notes: list[str] = []
    (found,) = findings_beside([SEEN], student(), run=run, ask=ask, notes=notes)
    if broken == "kd":
        assert found.unknown == "no room" and notes == []
        return
    assert found.value.value == pytest.approx(0.9)
    assert (found.teacher is None) == (found.difference is None) == (broken == "teacher")
    assert (found.untouched is None) == (broken == "untouched")
    assert notes == ([f"kd stands without {broken}, which cannot be asked: no room"] if broken else [])
