"""A run of either kind is opened as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from audited_runs import audited_run, write_rows
from audited_task_runs import audited_task_run, bag, mood_rows
from task_pipeline_builders import FakeWorkers

from configs import ConfigError
from orchestration.audits.finished import FinishedRun
from orchestration.audits.opening import open_audited
from orchestration.audits.tasks.finished import FinishedTaskRun


def test_what_was_distilled_decides_how_a_run_is_read(tmp_path: Path) -> None:
    for name in ("model", "task"):
        (tmp_path / name).mkdir()
    write_rows(tmp_path / "model", train=4, dev=3, test=3)
    assert isinstance(open_audited(audited_run(tmp_path / "model", by_heart=False)), FinishedRun)
    rows = {name: mood_rows(count, seed=count) for name, count in {"train": 8, "dev": 4, "test": 5}.items()}
    run = audited_task_run(tmp_path / "task", rows, students={"bag": bag()}, workers=FakeWorkers())
    assert isinstance(open_audited(run), FinishedTaskRun)


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory: name the directory of a finished run"):
        open_audited(tmp_path)
