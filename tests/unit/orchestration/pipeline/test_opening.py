from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import experiment

from configs import ConfigError, load_config
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.opening import opened_run, require_places
from orchestration.pipeline.run import Journal


def test_an_open_run_is_held_alone_and_keeps_what_was_written(tmp_path: Path) -> None:
    config, directory = experiment(tmp_path), tmp_path / "runs/e-1"
    with opened_run(config, directory, written="name: e\n") as (journal, artifacts):
        assert isinstance(journal, Journal) and isinstance(artifacts, Artifacts)
        assert artifacts.root == config.runtime.run_root
        with pytest.raises(ConfigError, match="is in use by another run"), opened_run(config, directory, written=""):
            pass
    assert (directory / "config.yaml").read_text() == "name: e\n"
    assert load_config(directory / "resolved.yaml") == config
    assert (directory / "logs/driver.log").is_file()
    with opened_run(config, directory, written="name: e\n"):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    runtime = config.runtime.model_copy(update={"run_root": blocked / "runs"})
    require_places(config, accelerator="cpu")
    with pytest.raises(ConfigError, match=r"runtime\.run_root"):
        require_places(config.model_copy(update={"runtime": runtime}), accelerator="cpu")
