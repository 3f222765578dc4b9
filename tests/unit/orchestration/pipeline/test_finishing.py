"""An experiment is finished when all that it leaves is there, whatever becomes of its audits."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import fake_run, go

from configs import BudgetReached
from orchestration.pipeline import finishing


def test_a_run_without_its_page_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finishing, "publish", killed)
        go(fake_run(tmp_path))
    directory = fake_run(tmp_path).settings.directory
    assert not (directory / "report.json").exists()
    assert go(fake_run(tmp_path)) is not None
    assert (directory / "report.html").is_file() and (directory / "report.json").is_file()


def test_a_budget_that_its_audits_reach_leaves_a_finished_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: object, **__: object) -> None:
        raise BudgetReached("raise it")

    monkeypatch.setattr(finishing, "with_audits", spent)
    run = fake_run(tmp_path)
    with pytest.raises(BudgetReached, match="raise it"):
        go(run)
    assert (run.settings.directory / "report.json").is_file()
    assert "held-out comparison" in run.said, "the table is shown"
