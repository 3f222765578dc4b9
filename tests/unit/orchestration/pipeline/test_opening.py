from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import experiment

from configs import ConfigError, load_config
from orchestration.lineage.records import Foundation, read_foundation
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.opening import opened_run, require_places
from orchestration.pipeline.run import Journal, Written


def test_an_open_run_is_held_alone_and_keeps_what_was_written(tmp_path: Path) -> None:
    config, directory = experiment(tmp_path), tmp_path / "runs/e-1"
    written = Written(config, tmp_path, {"data.train.path": "ab" * 32})
    with opened_run(config, directory, written=written) as (journal, artifacts):
        assert isinstance(journal, Journal) and isinstance(artifacts, Artifacts)
        assert artifacts.root == config.runtime.run_root
        again = opened_run(config, directory, written=written)
        with pytest.raises(ConfigError, match="is in use by another run"), again:
            pass
    assert load_config(directory / "config.yaml").digest() == config.digest()
    assert read_foundation(directory) == Foundation(config.digest(), written.content)
    assert load_config(directory / "resolved.yaml") == config
    assert (directory / "logs/driver.log").is_file()
    with opened_run(config, directory, written=written):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    runtime = config.runtime.model_copy(update={"run_root": blocked / "runs"})
    require_places(config, accelerator="cpu")
    with pytest.raises(ConfigError, match=r"runtime\.run_root"):
        require_places(config.model_copy(update={"runtime": runtime}), accelerator="cpu")
