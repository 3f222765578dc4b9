from __future__ import annotations

from pathlib import Path
from typing import Any

from task_pipeline_builders import LocalEngines, TaskPlace, task_place

from cache import CacheView, TeacherCache
from orchestration.inputs.task_sets import TaskSets
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
