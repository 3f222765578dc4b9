"""Lessons of several teachers as one: views that span their caches, with the turns and the test requests of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_builders import KD, SHAPE, FakePool, FakeRun, fake_run

from cache import TeacherCache
from cache.combined import CombinedView
from orchestration.inputs.teachers import open_cache, open_teacher
from orchestration.pipeline.combining import heads_in_words, mixed_lesson, routed_lesson
from orchestration.pipeline.lessons import Lesson
from orchestration.plan.scores import sequence_of


def teachers(**second: Any) -> dict[str, Any]:
    model = {"dtype": "float32", "top_k": 4}
    return {
        "teacher": {"model": {"random": SHAPE.model_dump(), "seed": 0}, **model},
        "teachers": {"second": {"model": {"random": SHAPE.model_dump(), "seed": 1}, **model, **second}},
    }


def lesson_of(run: FakeRun, name: str) -> Lesson:
    """What one of the teachers alone says to all prompts."""
    alone = FakeRun(run.root, run.config.of_teacher(name))
    teacher = alone.teacher()
    return alone.lesson(teacher, alone.prompts(teacher))


def scored_by_second(run: FakeRun, lesson: Lesson) -> TeacherCache:
    """The cache of the second teacher with its scores of everything that the first one wrote."""
    alone = run.config.of_teacher("second")
    teacher = open_teacher(alone)
    cache, fake = open_cache(alone, teacher), FakePool(teacher.identity, files=teacher.files).source
    for view in lesson.views.values():
        (told,) = lesson.cache.iter_blocks(view, [np.arange(len(view))])
        said: list[Any] = [record for _, record in fake.score([sequence_of(each) for each in told], k=4)]
        cache.put(said, vocab=teacher.files.vocab)
    cache.refresh()
    return cache


def test_a_mixture_has_the_rows_of_the_first_and_keeps_what_each_told(tmp_path: Path) -> None:
    run = fake_run(tmp_path, **teachers())
    first = lesson_of(run, "teacher")
    cache, folder = scored_by_second(run, first), run.settings.directory / "views"
    mixed = mixed_lesson(first, others={"second": cache}, config=run.config, folder=folder)
    assert mixed.views.keys() == first.views.keys() and mixed.tests == first.tests
    for name, view in mixed.views.items():
        combined = CombinedView.load(mixed.paths[name])
        assert view.digest == combined.digest != first.views[name].digest
        assert [bytes(key) for key in view.keys] == [bytes(key) for key in first.views[name].keys]
        assert (folder / "second" / f"{name}.npz").is_file()
    heads_in_words(mixed, config=run.config, console=run.journal.console)
    assert run.said.count("On teacher-dev the tokens that all teachers rank have") == 1


def test_views_of_text_alone_stay_what_they_are(tmp_path: Path) -> None:
    run = fake_run(tmp_path, **teachers())
    first = lesson_of(run, "teacher")
    bare = first.cache.view([bytes(key) for key in first.views["teacher-dev"].keys], dataset="gold-dev", k=0)
    cache = scored_by_second(run, first)
    lesson = replace(first, views={**first.views, "gold-dev": bare})
    mixed = mixed_lesson(lesson, others={"second": cache}, config=run.config, folder=tmp_path / "views")
    assert mixed.views["gold-dev"] is bare
    (told,) = mixed.reader.iter_blocks(bare, [np.arange(2)])
    assert all(record.topk_ids is None for record in told)


@pytest.mark.parametrize("k", [4, 2])
def test_routed_rows_stand_behind_each_other_and_are_read_as_narrow_as_the_narrowest(tmp_path: Path, k: int) -> None:
    views = {"s": {"init": {"keep_layers": 1}, "stages": [KD | {"views": 1}]}}
    run = fake_run(tmp_path, **teachers(top_k=k), students=views)
    lessons = {name: lesson_of(run, name) for name in ("teacher", "second")}
    routed = routed_lesson(lessons, config=run.config, folder=run.settings.directory / "views")
    view = routed.views["teacher-train"]
    assert len(view) == 6 and view.k == k
    (told,) = routed.reader.iter_blocks(view, [np.arange(6)])
    assert [record.k for record in told] == [k] * 6
    assert [record.key for record in told] == [bytes(key) for key in view.keys]
    assert routed.tests == lessons["teacher"].tests + lessons["second"].tests
    (turns,) = routed.turns.values()
    assert turns.rows.tolist() == [[0, 1, 2, 3, 4, 5]]
