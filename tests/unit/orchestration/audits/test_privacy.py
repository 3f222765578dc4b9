"""The privacy audit of runs whose truth is known: a student that knows its training rows by heart, and one that learned nothing."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from audited_runs import audited_run, found_in, write_rows

from evaluation.side_effects.findings import Audit
from orchestration.audits.finished import open_finished
from orchestration.audits.kinds import KINDS, audit_run
from orchestration.audits.privacy import privacy_rests_on
from orchestration.audits.settings import AuditSettings
from orchestration.outputs.console import Console

(PRIVACY,) = (kind for kind in KINDS if kind.name == "privacy")


def audited(directory: Path, *, rows: int = 256) -> Audit:
    settings = AuditSettings(rows=rows)
    return audit_run(open_finished(directory), PRIVACY, settings=settings, console=Console(io.StringIO()))


def gold(root: Path) -> dict[str, Any]:
    """A student that learns gold answers, of which nothing but having seen them says anything."""
    stages = [{"objective": "sft", "source": "gold", "steps": 200, "dtype": "float32"}]
    return {"students": {"kd": {"init": {"keep_layers": 1}, "stages": stages}}, "data": data(root)}


def data(root: Path) -> dict[str, Any]:
    splits = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    return {**splits, "response_field": "response", "max_prompt_tokens": 32}


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("by-heart")
    write_rows(root, train=110, dev=110, test=5, answers=True)
    return audited_run(root, by_heart=True, **gold(root))


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unlearned")
    write_rows(root, train=60, dev=60, test=5, answers=True)
    return audited_run(root, by_heart=False, **gold(root))


@pytest.mark.parametrize("score", ["loss", "against the teacher", "against the start", "zlib", "min-k"])
def test_rows_that_were_learned_by_heart_are_told_by_every_score(by_heart: Path, score: str) -> None:
    audit = audited(by_heart)
    area = found_in(audit, f"membership: {score}")
    rate = found_in(audit, f"membership: {score}, found at 1 % false alarms")
    assert area.value.value > 0.9 and area.value.interval.low > 0.8
    assert rate.value.value > 0.3
    assert area.value.n == rate.value.n == 220
    if score != "against the teacher":
        # The teacher never learned from them.
        assert area.teacher is not None and 0.3 < area.teacher.value < 0.7
        assert area.difference is not None and area.difference.interval.low > 0.1
    if score != "against the start":
        assert area.untouched is not None and 0.3 < area.untouched.value < 0.7


@pytest.mark.parametrize("score", ["loss", "against the teacher", "against the start", "zlib", "min-k"])
def test_of_a_student_that_learned_nothing_nothing_can_be_told(unlearned: Path, score: str) -> None:
    area = found_in(audited(unlearned), f"membership: {score}")
    if score == "against the start":
        # It is what it began as, so every row scores zero.
        assert area.value.value == 0.5
    else:
        assert area.value.interval.low <= 0.5 <= area.value.interval.high


def test_too_few_held_out_rows_for_a_rate_are_said(unlearned: Path) -> None:
    rate = found_in(audited(unlearned), "membership: loss, found at 1 % false alarms")
    assert rate.unknown == "1 % of 60 held-out rows is less than one row: it takes 100"


def test_what_is_repeated_is_beside_what_the_teacher_repeats(by_heart: Path) -> None:
    longest = found_in(audited(by_heart), "verbatim: longest run")
    assert longest.value.n == 5 and longest.teacher is not None and longest.untouched is not None
    assert longest.value.value >= 0 and not math.isnan(longest.teacher.value)


def test_the_notes_say_what_was_compared(unlearned: Path) -> None:
    notes = " ".join(audited(unlearned).notes)
    assert "kd: membership was asked of 60 training rows and as many held-out rows with gold answers" in notes
    assert "of the answers alone, not of the prompts" in notes


def test_it_rests_on_models_answers_rows_and_settings(unlearned: Path) -> None:
    run = open_finished(unlearned)
    rests_on = privacy_rests_on(run, AuditSettings())
    assert {"model of kd", "model of teacher", "answers of kd", "view gold-train.npz", "settings"} <= set(rests_on)
    assert privacy_rests_on(run, AuditSettings(rows=7))["settings"] != rests_on["settings"]


def test_gold_answers_and_the_teachers_are_asked_about_apart(tmp_path: Path) -> None:
    write_rows(tmp_path, train=30, dev=30, test=4, answers=True)
    stages = [
        {"objective": "sft", "source": "gold", "steps": 200, "dtype": "float32"},
        {"objective": "kd", "steps": 200, "dtype": "float32"},
    ]
    students = {"kd": {"init": {"keep_layers": 1}, "stages": stages}}
    directory = audited_run(tmp_path, by_heart=True, students=students, data=data(tmp_path))
    audit = audited(directory)
    assert found_in(audit, "membership (gold answers): against the teacher").value.n == 60
    # Dev and test rows both have the teacher's answers.
    assert found_in(audit, "membership (the teacher's answers): loss").value.n == 60
    assert len({(each.instrument, each.model) for each in audit.findings}) == len(audit.findings) == 22
