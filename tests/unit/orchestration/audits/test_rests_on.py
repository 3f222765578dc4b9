"""What an audit rests on changes with what it asks and whom, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results_builders import model_results, run_results

from configs import DistillConfig
from orchestration.audits import rests_on as module
from orchestration.audits.finished import FinishedRun
from orchestration.audits.rests_on import asked_pairs, bias_rests_on, privacy_rests_on, refusals_rest_on
from orchestration.audits.settings import AuditSettings
from orchestration.comparison.finished_models import FinishedModel

EVERY = {"privacy": privacy_rests_on, "bias": bias_rests_on, "refusals": refusals_rest_on}


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    splits = {name: {"path": f"{name}.jsonl"} for name in ("train", "dev", "test")}
    students = {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}}
    config = DistillConfig.model_validate(
        {"name": "e", "teacher": {"model": {"path": "teacher"}}, "data": splits, "students": students}
    )
    teacher = FinishedModel("teacher", "teacher", "d", tmp_path, "float32")
    views = {"teacher-test.npz": "1", "teacher-train.npz": "2"}
    return FinishedRun(tmp_path, config, run_results(model_results("kd", answers=("a",))), teacher, (), views)


@pytest.mark.parametrize("name", EVERY)
def test_a_release_that_measures_otherwise_makes_one_audit_anew(
    run: FinishedRun, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {each: told(run, AuditSettings()) for each, told in EVERY.items()}
    monkeypatch.setattr(module, "MEASURES", {**module.MEASURES, name: module.MEASURES[name] + 1})
    changed = {each for each, told in EVERY.items() if told(run, AuditSettings()) != before[each]}
    assert changed == {name}


@pytest.mark.parametrize(
    ("view", "asking"), [("teacher-test.npz", {"privacy", "bias"}), ("teacher-train.npz", {"privacy"})]
)
def test_other_rows_make_anew_what_asks_about_them(run: FinishedRun, view: str, asking: set[str]) -> None:
    other = replace(run, views={**run.views, view: "3"})
    assert {
        each for each, told in EVERY.items() if told(other, AuditSettings()) != told(run, AuditSettings())
    } == asking


def test_pairs_of_the_user_stand_beside_those_that_come_along(run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("kind,stereotyped,other\nmine,a,b\n")
    own = AuditSettings(pairs=(tmp_path / "own.csv",))
    (*first, last) = asked_pairs(own)
    assert tuple(first) == asked_pairs(AuditSettings()) and last.kind == "mine"
    assert {each for each, told in EVERY.items() if told(run, own) != told(run, AuditSettings())} == {"bias"}
