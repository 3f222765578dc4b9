"""What several teachers said as one lesson: its views span their caches, and nothing of them is copied.

The view of one teacher keeps its name in the folder of that teacher, and what stands for all of them lies beside those
of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache import CacheView, ScoreRequest, TeacherCache
from cache.combined import SUFFIX, CombinedCache, CombinedView, Part
from configs.schema import DistillConfig
from configs.teachers import FIRST
from orchestration.outputs.console import Console
from orchestration.pipeline.lessons import ROWS_PER_READ, TEST_VIEW, Lesson
from orchestration.plan.scores import sequence_of
from student_train.feed.turns import Turns
from student_train.training.readiness import mean_tail_mass

LITTLE_HEAD = 0.9
"""Mean probability of the tokens that all teachers rank; below it what is learned of a mixture is worth a warning."""


def mixed_lesson(lesson: Lesson, *, others: Mapping[str, TeacherCache], config: DistillConfig, folder: Path) -> Lesson:
    """The first teacher's lesson with the beliefs that it and the others have of its sequences together.

    Views of text alone stay what they are. Every row was scored by every other teacher.
    """
    made: dict[str, CombinedView] = {}
    for name, view in lesson.views.items():
        if not view.k:
            continue
        keys: dict[str, list[bytes]] = {other: [] for other in others}
        for scores in _sequences(view, cache=lesson.cache):
            for other, cache in others.items():
                found = cache.lookup(scores, k=config.teachers[other].top_k)
                keys[other] += [key for key in found if key is not None]
        places = np.arange(len(view), dtype=np.int64)
        parts = [Part(lesson.teacher.identity, config.shares[FIRST], view, places)]
        for other, cache in others.items():
            told = cache.view(keys[other], dataset=name, k=config.teachers[other].top_k)
            told.save(folder / other / f"{name}.npz")
            parts.append(Part(cache.identity, config.shares[other], told, places))
        made[name] = CombinedView(name, tuple(parts))
    return _over(lesson, made, folder=folder, root=config.runtime.cache_root)


def routed_lesson(lessons: Mapping[str, Lesson], *, config: DistillConfig, folder: Path) -> Lesson:
    """The lessons of teachers that have rows of their own as one, the first teacher's first."""
    first = lessons[FIRST]
    made: dict[str, CombinedView] = {}
    starts: dict[tuple[str, str], int] = {}
    for name in dict.fromkeys(view for lesson in lessons.values() for view in lesson.views):
        parts, start = [], 0
        for teacher, lesson in lessons.items():
            view = lesson.views.get(name)
            if view is None:  # no row of this split is its own
                continue
            # Read with as many entries as all teachers keep: rows of one batch are of one width.
            k = min(each.views[name].k for each in lessons.values() if name in each.views)
            keys = [bytes(key) for key in view.keys]
            told = view if view.k == k else lesson.cache.view(keys, dataset=name, k=k)
            starts[teacher, name] = start
            places = np.arange(start, start + len(view), dtype=np.int64)
            parts.append(Part(lesson.teacher.identity, 1.0, told, places))
            start += len(view)
        made[name] = CombinedView(name, tuple(parts))
    tests = tuple(request for lesson in lessons.values() for request in lesson.tests)
    joined = _over(replace(first, tests=tests), made, folder=folder, root=config.runtime.cache_root)
    turns = {name: _joined_turns(name, lessons, starts=starts) for name in first.turns}
    for name, table in turns.items():
        table.save(joined.paths[name])
    return replace(joined, turns=turns)


def heads_in_words(lesson: Lesson, *, config: DistillConfig, console: Console) -> None:
    """Say how much of the teachers' probability a mixture knows, on each held-out view, and warn where it is little."""
    assert isinstance(lesson.reader, CombinedCache), "the lesson is of one teacher"
    for name, view in lesson.views.items():
        combined = lesson.reader.views.get(view.digest)
        if combined is None or name == TEST_VIEW or not name.endswith("-dev"):
            continue
        alone = []
        for teacher, part in zip(config.every_teacher, combined.parts, strict=True):
            tail = mean_tail_mass(lesson.reader.caches[part.identity], view=part.view)
            alone.append(f"{teacher} {1.0 - tail:.1%}")
        known = 1.0 - mean_tail_mass(lesson.reader, view=view)
        line = (
            f"On {name} the tokens that all teachers rank have {known:.1%} of what they believe together; of its own "
            f"beliefs each tells {', '.join(alone)}"
        )
        if known < LITTLE_HEAD:
            console.warn(f"{line}: the rest is learned as one sum, so raise top_k of the teachers")
        else:
            console.say(f"{line}.")


def _sequences(view: CacheView, *, cache: TeacherCache) -> Iterator[list[ScoreRequest]]:
    """The sequence of each row, as another teacher is asked about it, many at a time."""
    pieces = np.split(np.arange(len(view)), range(ROWS_PER_READ, len(view), ROWS_PER_READ))
    return ([sequence_of(record) for record in block] for block in cache.iter_blocks(view, pieces))


def _over(lesson: Lesson, made: Mapping[str, CombinedView], *, folder: Path, root: Path | str) -> Lesson:
    """The lesson with views that span several caches in the place of its own."""
    paths = dict(lesson.paths)
    for name, view in made.items():
        paths[name] = folder / f"{name}{SUFFIX}"
        view.save(paths[name])
    reader = CombinedCache(root, made.values(), otherwise=lesson.reader)
    views = {**lesson.views, **{name: view.rows for name, view in made.items()}}
    return replace(lesson, views=views, paths=paths, reader=reader)


def _joined_turns(name: str, lessons: Mapping[str, Lesson], *, starts: Mapping[tuple[str, str], int]) -> Turns:
    """The turns of all teachers' rows; `starts` are where the rows of each begin in a view."""
    view = name.rsplit("-", 2)[0]  # as `StageConfig.turns` names them
    tables = [lesson.turns[name].rows + np.int32(starts[teacher, view]) for teacher, lesson in lessons.items()]
    return Turns(np.concatenate(tables, axis=1).astype(np.int32))
