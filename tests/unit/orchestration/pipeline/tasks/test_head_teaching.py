from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_heads import serving_head
from served_teachers import TOKEN_ENV
from task_pipeline_builders import LocalEngines, TaskPlace, task_place

from cache import CacheView, TeacherCache
from configs import ConfigError
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.tasks import load_task
from orchestration.pipeline.tasks.head_teaching import AskedHead, HeadTeaching


def asked(place: TaskPlace) -> AskedHead:
    workers: Any = place.workers
    teaching = HeadTeaching(place.run, place.journal, workers, lambda teacher: LocalEngines(teacher, place.called))
    task = load_task(place.run.config.task)
    return teaching.plan(task, TaskSets({"train": task.train}, ()), prepared=None)


def test_what_is_missing_is_asked_and_counted(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    asked(place).ask()
    assert place.called == ["check 2", "fill 8", "release"] and place.workers.clusters == 1
    assert "8 new signals" in place.said
    assert place.journal.ledger.counts().fill > 0
    again = asked(place)
    assert again.wanted.misses == 0
    again.ask()
    assert place.called == ["check 2", "fill 8", "release", "release"] and place.workers.clusters == 1
    assert "nothing to ask: every signal is in the cache" in place.said


def test_the_signals_of_every_set_are_pinned(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    part = asked(place)
    assert part.pin(tmp_path / "views") == {}
    part.ask()
    found = part.pin(tmp_path / "views")
    assert list(found) == ["train", "dev"]
    view = CacheView.load(tmp_path / "views/train.npz")
    assert (len(view), view.k, view.digest) == (6, 2, found["train"])
    cache = TeacherCache.open(place.run.config.runtime.cache_root, part.name.identity)
    assert cache.signals.holds(view)


def asked_there(place: TaskPlace) -> AskedHead:
    """The same of a teacher that is asked where the experiment says."""
    workers: Any = place.workers
    task = load_task(place.run.config.task)
    return HeadTeaching(place.run, place.journal, workers).plan(
        task, TaskSets({"train": task.train}, ()), prepared=None
    )


def test_a_teacher_behind_a_door_answers_as_one_here_and_no_cluster_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = task_place(tmp_path / "here"), task_place(tmp_path / "there")
    asked(here).ask()
    task = load_task(there.run.config.task)
    with serving_head(tmp_path, open_task_teacher(there.run.config, task.config)) as served:
        monkeypatch.setenv(TOKEN_ENV, served.token)
        there.values["teacher"]["serve"] = served.block()
        part = asked_there(there)
        part.show(there.journal.console)
        part.ask()
    host = served.url.removeprefix("http://")
    assert "answered behind a door" in there.said and "8 new signals" in there.said
    assert there.workers.clusters == 0
    for ours, theirs in zip(part.about(task.train), asked(here).about(task.train), strict=True):
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    said = part.head.teacher.provenance(there.run.config)
    assert said["served_by"] == host and "transformers" not in said
    # The door is gone by now, and nobody needs it: every signal is in the cache.
    asked_there(there).ask()
    assert "nothing to ask: every signal is in the cache" in there.said
    workers: Any = there.workers
    assert (
        HeadTeaching(there.run, there.journal, workers)
        .require(task, progress=lambda *_: None)
        .endswith(f", behind {host}")
    )


def test_a_door_to_another_teacher_ends_the_stage_with_nothing_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = task_place(tmp_path)
    config = place.run.config
    teacher = open_task_teacher(config, load_task(config.task).config)
    with serving_head(tmp_path, teacher, max_tokens=8) as served:
        monkeypatch.setenv(TOKEN_ENV, served.token)
        place.values["teacher"]["serve"] = served.block()
        with pytest.raises(ConfigError, match=r"^teacher\.max_tokens=16 and seer behind .* reads 8 tokens"):
            asked_there(place).ask()
    assert served.moods.questions == 0
