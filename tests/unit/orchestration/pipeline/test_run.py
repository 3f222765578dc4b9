"""The settings of a run, and its journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_builders import experiment, fake_run

from configs import ConfigError
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.run import RunSettings, Written
from orchestration.plan.colocation import GPU_SHARES
from orchestration.plan.hardware import Hardware


@pytest.mark.parametrize(
    ("hardware", "colocate", "shares"),
    [(Hardware("gpu"), True, True), (Hardware("gpu"), False, False), (Hardware("cpu"), True, False)],
)
def test_gpus_are_shared_where_there_are_some_and_it_is_wanted(
    hardware: Hardware, colocate: bool, shares: bool, tmp_path: Path
) -> None:
    config = experiment(tmp_path, runtime={"colocate": colocate})
    settings = replace(fake_run(tmp_path).settings, config=config, hardware=hardware)
    assert settings.device == hardware.accelerator
    assert settings.shares_gpus == shares
    wanted = GPU_SHARES["teacher engine"] if shares else 1.0
    assert settings.gpu_share("teacher engine") == wanted


def test_logs_have_a_path_that_every_process_understands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings: RunSettings = replace(fake_run(tmp_path).settings, directory=Path("runs/one"))
    assert settings.logs == tmp_path / "runs/one/logs"


def test_a_child_is_tracked_and_closed(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    run.journal.track("kd", {"loss": 1.0})
    assert run.tracker.told == [("final", "kd", {"loss": 1.0}), ("finish", "kd", "FINISHED")]


def test_a_file_that_changed_since_the_run_began_ends_it(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    written = Written(config, tmp_path, content_of(config, config_dir=tmp_path))
    written.require_unchanged()
    (tmp_path / "dev.jsonl").write_text('{"prompt": "another"}\n')
    with pytest.raises(ConfigError, match=r"data\.dev\.path"):
        written.require_unchanged()
