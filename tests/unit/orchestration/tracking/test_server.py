"""Which artifacts the server of MLflow shows."""

from __future__ import annotations

import json
import os
from pathlib import Path

from orchestration.tracking.server import UiSettings, why_refused


def test_settings_come_over_the_pipe_as_they_were_sent() -> None:
    settings = UiSettings("sqlite:///x.db", "runs/mlartifacts", "t" * 43, 5000, 7)
    assert UiSettings(**json.loads(json.dumps(settings.fields()))) == settings


def test_artifacts_are_shown_from_one_directory_and_through_no_link(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "runs/mlartifacts", tmp_path / "home"
    secret.mkdir()
    (secret / "key").write_text("secret")
    run = allowed / "run/artifacts"
    run.mkdir(parents=True)
    (run / "report.md").write_text("# done")
    assert why_refused(run, root=allowed) is None
    assert why_refused(allowed / "not/yet", root=allowed) is None
    for outside in (secret, tmp_path / "runs", allowed, allowed / "run/../../..", tmp_path / "runs/mlartifacts-2"):
        assert why_refused(outside, root=allowed) is not None, outside
    (allowed / "linked").symlink_to(secret)
    assert why_refused(allowed / "linked", root=allowed) is not None
    assert why_refused(allowed / "linked/deeper", root=allowed) is not None
    (run / "deep").mkdir()
    (run / "deep/key").symlink_to(secret / "key")
    assert why_refused(run, root=allowed) == "key is a link or not a regular file: remove it"
    (run / "deep/key").unlink()
    os.mkfifo(run / "deep/pipe")
    assert why_refused(run, root=allowed) == "pipe is a link or not a regular file: remove it"


def test_a_run_root_that_was_moved_and_linked_to_keeps_its_artifacts(tmp_path: Path) -> None:
    (tmp_path / "large/run/artifacts").mkdir(parents=True)
    (tmp_path / "mlartifacts").symlink_to("large")
    for named in ("mlartifacts", "large"):
        assert why_refused(tmp_path / named / "run/artifacts", root=tmp_path / "mlartifacts") is None
    (tmp_path / "large/other").symlink_to(tmp_path)
    assert why_refused(tmp_path / "mlartifacts/other/large", root=tmp_path / "mlartifacts") is not None
