"""What was made of rows: the views and lessons of runs that name them, and the students that learned from those.

A student keeps in its model card the digest of the view, or of the examples, that it was trained from; one that wrote
rollouts is named by them, and those of a finished run by its report. A student cannot unlearn: it is named, and whoever
asked decides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.disk.key_objects import key_array
from cache.disk.storage import Storage
from cache.pins import read_pins
from cache.view_files import views_within
from cache.views import CacheView
from configs import CacheError, DistillError
from configs.model_files import CARD
from orchestration.comparison.report import read_report
from orchestration.outputs.artifacts import Artifacts

VIEWS = "views"
"""The folder of a run directory with what its students read."""

_ROLLOUT = re.compile(r"rollout-([0-9a-f]{12})-\d+")
_LESSON = re.compile(r".*-([0-9a-f]{16})\.safetensors")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taught:
    """What rests on some rows.

    `views` are files of runs that name them by their keys alone, `lessons` files that hold their token ids; `students`
    are directories of models that learned from them.
    """

    views: tuple[Path, ...]
    lessons: tuple[Path, ...]
    students: tuple[Path, ...]


def taught_by(
    keys: Collection[bytes], *, storages: Iterable[Storage], run_root: Path, task_runs: Collection[Path]
) -> Taught:
    """What rests on the rows of these keys, in the caches at `storages` and below a run root.

    `task_runs` are directories of runs whose lessons hold such rows in any tokenizer.
    """
    wanted = key_array(sorted(keys))
    digests, views, lessons = set[str](), list[Path](), list[Path]()
    for storage in storages:
        digests |= {name for view in _pinned(storage) if (name := _named(view, wanted)) is not None}
    for path in sorted(run_root.glob(f"*/{VIEWS}/**/*")):
        found = [name for view in _views(path) if (name := _named(view, wanted)) is not None]
        digests |= set(found)
        lesson = _LESSON.fullmatch(path.name)
        if found:
            (views if path.suffix == ".npz" else lessons).append(path)
        elif lesson and any(path.is_relative_to(run) for run in task_runs):
            lessons.append(path)
            digests.add(lesson[1])
    runs = {run_root / path.relative_to(run_root).parts[0] for path in (*views, *lessons)}
    students = {*_students(digests, run_root=run_root), *_students_of(runs, run_root=run_root)}
    return Taught(tuple(views), tuple(lessons), tuple(sorted(students)))


def _pinned(storage: Storage) -> Iterator[CacheView]:
    for pin in read_pins(storage):
        try:
            data = storage.read(f"pins/{pin.view}.npz", at_most=2**30)
            yield CacheView.from_bytes(data, name=f"{storage.place}/pins/{pin.view}.npz")
        except (OSError, ValueError) as error:
            logger.warning("a pinned view cannot be read, its students may be missed: %s", error)


def _views(path: Path) -> tuple[CacheView, ...]:
    if path.suffix not in (".npz", ".safetensors"):
        return ()
    try:
        return views_within(path)
    except CacheError as error:
        logger.warning("%s", error)
        return ()


def _named(view: CacheView, wanted: np.ndarray) -> str | None:
    """What students call a view that holds one of the rows: its digest, or whose rollout it is; None for others."""
    if not np.isin(key_array([key.tobytes() for key in view.keys]), wanted).any():
        return None
    rollout = _ROLLOUT.fullmatch(view.dataset)
    return view.digest if rollout is None else rollout[1]


def _students_of(runs: Collection[Path], *, run_root: Path) -> Iterator[Path]:
    """The students of finished runs that are still there."""
    artifacts = Artifacts(run_root)
    for run in runs:
        with suppress(DistillError):  # of another version; its students are known by their cards
            report = read_report(run)
            if report is not None:
                yield from (path for each in report.rests_on.students if (path := artifacts.student_dir(each)).is_dir())


def _students(digests: Collection[str], *, run_root: Path) -> Iterator[Path]:
    """Trained students whose card names one of these digests, or that are called after one."""
    for card in sorted((run_root / "students").glob(f"*/{CARD}")):
        named = set(re.findall(r"[0-9a-f]{16,64}", card.read_text(encoding="utf-8", errors="replace")))
        named |= {name[:16] for name in named} | {card.parent.name[:12]}
        if not named.isdisjoint(digests):
            yield card.parent
