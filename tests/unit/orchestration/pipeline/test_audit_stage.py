"""Audits end a run: made once each, kept each by itself, on the page, and never a reason for a run to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import FakeRun, fake_run, go

from configs import BudgetReached, ModelError, dump_config
from configs.places import PAGE, RESOLVED
from evaluation.side_effects.findings import Audit, Finding
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval
from orchestration.audits.kinds import AuditKind
from orchestration.comparison.audits import audit_path, read_audits
from orchestration.comparison.report import Report, read_report
from orchestration.pipeline import audit_stage
from orchestration.pipeline.audit_stage import with_audits

SURE = Estimate(0.9, Interval(0.8, 1.0, "bca", 0.0), 80)


@dataclass
class FakeAudits:
    """The audits of this name find one number of kd; `on_make` may fail."""

    made: list[str] = field(default_factory=list)
    on_make: Callable[[str], None] = lambda _: None
    rests_on: str = "ab"

    def kinds(self, *names: Any) -> tuple[AuditKind, ...]:
        return tuple(self._kind(name) for name in names)

    def _kind(self, name: Any) -> AuditKind:
        def make(*_: Any) -> Audit:
            self.made.append(name)
            self.on_make(name)
            found = Finding(
                name, f"what {name} sees: 1 %", "kd", "kd", SURE, SURE, None, SURE, "fraction", "it is", None
            )
            return Audit(name, {"model": self.rests_on}, (found,), ())

        return AuditKind(name, "a question", lambda *_: {"model": self.rests_on}, make)


@pytest.fixture
def audits(monkeypatch: pytest.MonkeyPatch) -> FakeAudits:
    fake = FakeAudits()
    monkeypatch.setattr(audit_stage, "KINDS", fake.kinds("privacy", "bias", "refusals"))
    return fake


def finished(root: Path, *names: str) -> tuple[FakeRun, Report]:
    """A run that has ended with these audits."""
    run = fake_run(root, audit={"run": list(names)})
    (run.settings.directory / RESOLVED).write_text(dump_config(run.config))
    report = go(run)
    assert report is not None
    return run, report


def test_the_audits_that_a_run_names_end_it(tmp_path: Path, audits: FakeAudits) -> None:
    run, report = finished(tmp_path, "bias", "privacy")
    assert audits.made == ["privacy", "bias"]
    assert set(read_audits(run.settings.directory).audits) == {"privacy", "bias"}
    page = (run.settings.directory / PAGE).read_text()
    assert "what privacy sees: 1 %" in page and "what bias sees: 1 %" in page
    # What they took stands among the stages, here and in what is kept.
    assert [stage.name for stage in report.results.cost.stages][-2:] == ["privacy audit", "bias audit"]
    kept = read_report(run.settings.directory)
    assert kept is not None and repr(kept.results) == repr(report.results)
    assert {"privacy audit", "bias audit"} < {span.title for span in kept.results.timeline}
    finals = {name: value for _, values in run.tracker.of("final", "kd") for name, value in values.items()}
    assert finals["audit/privacy/what_privacy_sees_1"] == finals["audit/bias/what_bias_sees_1_minus_teacher"] == 0.9
    assert "Audit of privacy: 1 numbers, apart from the teacher's: 1 of kd." in run.said
    # Engines are gone by then: audits read models in this process.
    assert run.compute.pools[0].called[-1] == "release"


def test_a_run_that_names_none_makes_none(tmp_path: Path, audits: FakeAudits) -> None:
    assert go(fake_run(tmp_path)) is not None and audits.made == []


def test_a_start_that_is_killed_goes_on_with_what_is_missing(tmp_path: Path, audits: FakeAudits) -> None:
    def killed(name: str) -> None:
        if name == "bias":
            raise KeyboardInterrupt

    audits.on_make = killed
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path, "all")
    audits.on_make = lambda _: None
    run = fake_run(tmp_path, audit={"run": ["all"]})
    report = read_report(run.settings.directory)
    assert report is not None, "the experiment was finished before its audits began"
    assert "what privacy sees" in (run.settings.directory / PAGE).read_text(), "each is shown when it is made"
    for _ in range(2):
        report = with_audits(report, settings=run.settings, journal=run.journal)
    assert audits.made == ["privacy", "bias", "bias", "refusals"]


def test_what_changed_since_is_made_anew(tmp_path: Path, audits: FakeAudits) -> None:
    run, report = finished(tmp_path, "bias")
    audits.rests_on = "cd"
    with_audits(report, settings=run.settings, journal=run.journal)
    assert audits.made == ["bias", "bias"] and "the audit is made anew" in run.said


@pytest.mark.parametrize("error", [ModelError("no weights"), RuntimeError("no weights"), OSError("no weights")])
def test_an_audit_that_cannot_be_made_says_so_on_the_page_and_is_tried_again(
    tmp_path: Path, audits: FakeAudits, error: Exception
) -> None:
    def fail(name: str) -> None:
        if name == "privacy":
            raise error

    audits.on_make = fail
    run, report = finished(tmp_path, "privacy", "bias")
    assert report.missing == () and audits.made == ["privacy", "bias"]
    assert "the privacy audit could not be made: no weights" in run.said
    page = (run.settings.directory / PAGE).read_text()
    assert "kd, privacy audit: no weights" in page and "what bias sees" in page
    audits.on_make = lambda _: None
    with_audits(report, settings=run.settings, journal=run.journal)
    assert audits.made == ["privacy", "bias", "privacy"]
    assert "no weights" not in (run.settings.directory / PAGE).read_text()


def test_a_run_that_cannot_be_opened_says_why_in_place_of_every_audit(
    tmp_path: Path, audits: FakeAudits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(directory: Path) -> None:
        raise ModelError("a student has gone")

    monkeypatch.setattr(audit_stage, "open_audited", closed)
    run, _ = finished(tmp_path, "privacy", "bias")
    assert audits.made == []
    assert (run.settings.directory / PAGE).read_text().count("a student has gone") >= 2


def test_a_budget_that_is_spent_ends_it_when_the_table_is_shown(tmp_path: Path, audits: FakeAudits) -> None:
    def spent(name: str) -> None:
        raise BudgetReached("raise it")

    audits.on_make = spent
    run = fake_run(tmp_path, audit={"run": ["bias"]})
    (run.settings.directory / RESOLVED).write_text(dump_config(run.config))
    with pytest.raises(BudgetReached):
        go(run)
    assert "held-out comparison" in run.said and run.tracker.told[-1] == ("finish all", "KILLED")
    assert not audit_path(run.settings.directory, "bias").exists()
