from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import fake_run, namespace

from orchestration.cluster.warm_groups import WarmGroups
from orchestration.cluster.worker_group import GroupShape
from orchestration.pipeline.session import Session
from orchestration.pipeline.workers import Workers


def test_the_cluster_is_started_once_and_groups_have_the_shape_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, given = fake_run(tmp_path), list[tuple[Any, dict[str, Any]]]()
    attached: list[dict[str, Any]] = []
    monkeypatch.setattr(Session, "attached", property(lambda _: bool(attached)))
    monkeypatch.setattr(Session, "attach", lambda _, runtime, **named: attached.append(named) or 1)
    monkeypatch.setattr(WarmGroups, "train", lambda _, job, **named: given.append((job, named)) or {"steps": 3})
    monkeypatch.setattr(WarmGroups, "room", contextmanager(lambda _: (yield "room")))
    workers = Workers(run.settings, run.journal, Session(tmp_path))
    job, on_step = namespace(settings=run.config.runtime.training), lambda _: None
    assert workers.train(job, on_step=on_step) == {"steps": 3}
    workers.train(job, on_step=on_step, meanwhile=on_step, gpu_share=0.5)  # type: ignore[arg-type]
    assert attached == [{"device": "cpu", "gpus": run.settings.hardware.gpus_per_node}]
    training = run.config.runtime.training
    shapes = [named["shape"] for _, named in given]
    assert shapes == [GroupShape(training.workers, training.cpus_per_worker, "cpu", share) for share in (1.0, 0.5)]
    assert given[0][1]["log_dir"] == run.settings.logs and given[0][1]["meanwhile"]() is None
    with workers.room() as freed:
        assert freed == "room"
