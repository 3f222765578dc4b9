"""A whole run that its budget of energy ends, and goes on where the budget is raised; and the audits that end it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_drivers import DriverPlace

from configs.places import PAGE
from orchestration.comparison.audits import read_audits
from orchestration.comparison.report import read_report
from orchestration.fill.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"

LITTLE = "budgets.max_kwh=1e-4"
"""360 J, estimated or measured: seconds of any machine."""

ENOUGH = "budgets.max_kwh=10"


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[DriverPlace]:
    made = DriverPlace(tmp_path, TINY)
    yield made
    made.clear()


def test_a_run_that_energy_ends_goes_on_when_the_budget_is_raised_and_ends_with_its_audits(place: DriverPlace) -> None:
    process = place.start(LITTLE)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 3, printed
    last = printed.strip().splitlines()[-1]
    assert "kWh are spent of budgets.max_kwh=0.0001 and " in last and "is not done: raise it and run again" in last
    (run,) = (place.root / "runs").glob("tiny-*")
    assert read_report(run) is None
    place.wait_until_gone()
    spent = Ledger.open(run).counts().joules
    assert spent >= 360.0
    # The same limit is spent already, whatever this start takes.
    again = place.start(LITTLE)
    assert "is not done: raise it" in again.communicate(timeout=900)[0] and again.returncode == 3
    place.wait_until_gone()
    place.finish(ENOUGH, "audit.run=bias", "audit.rows=16")
    assert list((place.root / "runs").glob("tiny-*")) == [run], "what it may take, and its audits, change no digest"
    assert Ledger.open(run).counts().joules > spent
    report = read_report(run)
    assert report is not None and [model.name for model in report.results.models][-2:] == ["seqkd", "kd"]
    starts = {span.title: span.start for span in report.results.timeline}
    assert starts["bias audit"] == 2 and set(read_audits(run).audits) == {"bias"}
    # Further audits of a finished experiment: no engine, no worker, no plan.
    printed = place.finish(ENOUGH, "audit.run=all", "audit.rows=16")
    assert "privacy audit" in printed and "refusals audit" in printed
    assert not any(line in printed for line in ("- ray", "- teacher", "- prompts", "- bias audit"))
    assert set(read_audits(run).audits) == {"privacy", "bias", "refusals"}
    assert "Audit of privacy: " in printed and "membership: loss" in (run / PAGE).read_text()
    kept = {path: path.read_bytes() for path in (run / "audits").iterdir()}
    printed = place.finish(LITTLE, "audit.run=all", "audit.rows=16")
    assert "audit ..." not in printed and {path: path.read_bytes() for path in kept} == kept
    assert json.loads((run / "report.json").read_text())["results"]["failures"] == []
