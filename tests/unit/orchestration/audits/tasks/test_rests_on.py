"""What an audit of a task rests on changes with what it asks and whom, and with nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.audits.settings import AuditSettings
from orchestration.audits.tasks import rests_on as module
from orchestration.audits.tasks.rests_on import task_bias_rests_on, task_privacy_rests_on, task_refusals_rest_on

EVERY = {"privacy": task_privacy_rests_on, "bias": task_bias_rests_on, "refusals": task_refusals_rest_on}


def run(*, model: str = "m", lesson: str = "l", kind: str = "classification") -> Any:
    """What they look at of a run."""
    return SimpleNamespace(
        models=lambda: {"model of bag": model},
        results=SimpleNamespace(tasks=[SimpleNamespace(digest="t")]),
        students=[SimpleNamespace(name="bag", stages=[SimpleNamespace(train=lesson, dev="d")])],
        task=SimpleNamespace(config=SimpleNamespace(kind=kind)),
    )


def changed(other: Any, **asking: Any) -> set[str]:
    return {
        name for name, told in EVERY.items() if told(other, AuditSettings(**asking)) != told(run(), AuditSettings())
    }


def test_each_is_made_anew_for_what_it_asks_about() -> None:
    assert changed(run()) == set()
    assert changed(run(model="n")) == {"privacy", "bias"}
    assert changed(run(lesson="n")) == {"privacy"}
    assert changed(run(kind="tagging")) == {"refusals"}
    assert changed(run(), rows=7) == {"privacy", "bias"}


@pytest.mark.parametrize("name", ["privacy", "bias"])
def test_a_release_that_measures_otherwise_makes_one_audit_anew(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {each: told(run(), AuditSettings()) for each, told in EVERY.items()}
    monkeypatch.setattr(module, "MEASURES", {**module.MEASURES, name: module.MEASURES[name] + 1})
    assert {each for each, told in EVERY.items() if told(run(), AuditSettings()) != before[each]} == {name}
