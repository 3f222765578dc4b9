"""A run that is finished is opened once more for the audits that it lacks, and nothing else is done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from audited_runs import audited_run, write_rows

from configs import DistillConfig, load_config
from configs.places import PAGE, RESOLVED, WRITTEN
from orchestration.comparison.audits import audit_path
from orchestration.comparison.report import read_report
from orchestration.pipeline import audit_finished as module
from orchestration.pipeline import late_audits
from orchestration.pipeline.audit_finished import audit_finished


def test_a_finished_experiment_makes_the_audits_that_it_lacks_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, train=8, dev=6, test=6)
    directory = audited_run(tmp_path, by_heart=False)
    monkeypatch.setattr(module, "directory_of", lambda *_: directory)
    written, before = load_config(directory / WRITTEN), read_report(directory)
    assert before is not None
    config = DistillConfig.model_validate(written.model_dump(mode="json") | {"audit": {"run": ["bias"]}})
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
    monkeypatch.setattr(late_audits, "opened_run", lambda *_, **__: pytest.fail("it was opened again"))
    assert audit_finished(config, config_dir=directory, report=report) is report
    assert audit_path(directory, "bias").read_bytes() == made
