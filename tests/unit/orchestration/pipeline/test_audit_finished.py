"""Audits that are named when an experiment is finished are made alone; what is kept is not opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audited_runs import audited_run, write_rows

from configs import DataError, DistillConfig, dump_config, load_config
from configs.places import PAGE, RESOLVED, WRITTEN
from orchestration import entry
from orchestration.comparison.audits import audit_path
from orchestration.comparison.report import Report, read_report
from orchestration.pipeline import audit_finished as module
from orchestration.pipeline.audit_finished import audit_finished


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_rows(tmp_path, train=8, dev=6, test=6)
    found = audited_run(tmp_path, by_heart=False)
    monkeypatch.setattr(module, "directory_of", lambda *_: found)
    return found


def asking(directory: Path, **audit: Any) -> DistillConfig:
    config = load_config(directory / WRITTEN)
    return DistillConfig.model_validate(config.model_dump(mode="json") | {"audit": audit})


def report_in(directory: Path) -> Report:
    report = read_report(directory)
    assert report is not None
    return report


def test_a_finished_experiment_makes_the_audits_that_it_lacks_and_nothing_else(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, before = asking(directory, run=["bias"]), report_in(directory)
    assert config.digest() == load_config(directory / WRITTEN).digest()
    report = audit_finished(config, config_dir=directory, report=before)
    assert [stage.name for stage in report.results.cost.stages][-1] == "bias audit"
    assert len(report.results.cost.stages) == len(before.results.cost.stages) + 1
    assert replace(report.results, cost=before.results.cost, timeline=()) == replace(before.results, timeline=())
    assert "pairs: gender" in (directory / PAGE).read_text()
    # The run says what it was asked, so `distill audit` asks the same.
    for name in (WRITTEN, RESOLVED):
        assert load_config(directory / name).audit == config.audit
    made = audit_path(directory, "bias").read_bytes()
    monkeypatch.setattr(module, "opened_run", lambda *_, **__: pytest.fail("it was opened again"))
    assert audit_finished(config, config_dir=directory, report=report) is report
    assert audit_path(directory, "bias").read_bytes() == made


def test_a_file_of_pairs_that_is_none_is_refused_in_one_line(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    config = asking(directory, run=["bias"], pairs=[str(tmp_path / "pairs.csv")])
    with pytest.raises(DataError, match=r"audit\.pairs\.0: .*pairs\.csv is none of CrowS-Pairs"):
        audit_finished(config, config_dir=directory, report=report_in(directory))


@pytest.mark.parametrize(("until", "audit", "called"), [("eval", True, 1), ("train", True, 0), ("eval", False, 0)])
def test_only_a_whole_run_of_an_experiment_that_names_audits_looks_for_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch, until: Any, audit: bool, called: int
) -> None:
    config = asking(directory, run=["bias"]) if audit else load_config(directory / WRITTEN)
    looked: list[str] = []
    report = report_in(directory)

    def audited(*_: Any, report: Report, **__: Any) -> Report:
        looked.append("looked")
        return report

    monkeypatch.setattr("orchestration.comparison.show.show_finished", lambda *_, **__: report)
    monkeypatch.setattr(module, "audit_finished", audited)
    assert entry.run_pipeline(config, config_dir=directory, until=until) is report
    assert len(looked) == called
    assert dump_config(config)
