from __future__ import annotations

from pathlib import Path
from typing import Any

from task_pipeline_builders import LocalEngines, TaskPlace, task_place

from cache import CacheView, TeacherCache
from orchestration.inputs.task_teachers import open_task_cache, open_task_teacher
from orchestration.inputs.tasks import load_task
from orchestration.pipeline.stage import run_stage
from orchestration.pipeline.tasks.asking import AskedHead, SignalFill, pin_signals
from orchestration.pipeline.tasks.head_teacher import HeadTeacher
from orchestration.plan.signal_requests import wanted_signals


def asked(place: TaskPlace) -> AskedHead:
    config = place.run.config
    task = load_task(config.task)
    teacher = open_task_teacher(config, task.config)
    head = HeadTeacher(teacher, task.config, config.teacher, open_task_cache(config, teacher))
    sets = {"train": task.train, "dev": task.dev}
    return AskedHead(
        head, head.plan(sets, wanted_signals(config, kind="classification")), LocalEngines(teacher, place.called)
    )


def fill(place: TaskPlace, part: AskedHead) -> None:
    workers: Any = place.workers
    run_stage(SignalFill(part, place.run, place.journal, workers), settings=place.run, journal=place.journal)


def test_what_is_missing_is_asked_and_counted(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    fill(place, asked(place))
    assert place.called == ["check 2", "fill 8"] and place.workers.clusters == 1
    assert "8 new signals" in place.said
    assert place.journal.ledger.counts().fill > 0
    again = asked(place)
    assert again.plan.misses == 0
    fill(place, again)
    assert place.called == ["check 2", "fill 8"] and place.workers.clusters == 1
    assert "nothing to ask: every signal is in the cache" in place.said


def test_the_signals_of_every_set_are_pinned(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    part = asked(place)
    assert pin_signals(part, folder=tmp_path / "views") == {}
    fill(place, part)
    found = pin_signals(part, folder=tmp_path / "views")
    assert list(found) == ["train", "dev"]
    view = CacheView.load(tmp_path / "views/train.npz")
    assert (len(view), view.k, view.digest) == (6, 2, found["train"])
    cache = TeacherCache.open(place.run.config.runtime.cache_root, part.head.teacher.identity)
    assert cache.signals.holds(view)
