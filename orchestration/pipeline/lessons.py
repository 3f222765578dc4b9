"""What one teacher said, pinned for its students.

A lesson is the teacher's (or an assistant's) part of the cache and the views of it that students are trained on and
measured against. Views are kept in the run directory; a stage with filters has a view of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import CacheView, TeacherCache
from configs import CacheError, DataError
from configs.stages import StageConfig
from orchestration.inputs.prompts import Prompt
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.filters import Filtered, apply_filters
from orchestration.pipeline.run import Journal
from orchestration.plan.requests import SequenceSet

ROWS_PER_READ = 1024


@dataclass(frozen=True, slots=True)
class Lesson:
    """The pinned views of one teacher by name ("teacher-train"), and the files they are kept in."""

    teacher: Teacher
    cache: TeacherCache
    views: Mapping[str, CacheView]
    paths: Mapping[str, Path]


def pin_lesson(
    sets: Sequence[SequenceSet],
    *,
    journal: Journal,
    teacher: Teacher,
    cache: TeacherCache,
    stages: Sequence[StageConfig],
    prompts: Sequence[Prompt],
    folder: Path,
) -> Lesson:
    """Pin what `stages` read, and write it below `folder`. `prompts` are those of the train split.

    Raises:
        CacheError: a set has no row at all.
        DataError: filters leave no row.
    """
    views = {sequences.name: _pin(sequences, cache=cache) for sequences in sets}
    for stage in stages:
        if stage.train_view not in views:
            whole = views[f"{stage.source}-train"]
            result = _filtered(stage, view=whole, teacher=teacher, cache=cache, prompts=prompts)
            _report(stage, result, journal=journal)
            if not result.keys:
                raise DataError(f"filters leave none of the {len(whole):,} sequences of {whole.dataset}: {result}")
            views[stage.train_view] = cache.view(result.keys, dataset=stage.train_view, k=whole.k)
    paths = {name: folder / f"{name}.npz" for name in views}
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in views.items():
        view.save(paths[name])
    return Lesson(teacher, cache, views, paths)


def _pin(sequences: SequenceSet, *, cache: TeacherCache) -> CacheView:
    keys = [key for key in cache.lookup(sequences.requests, k=sequences.k) if key is not None]
    if not keys:
        raise CacheError(f"the teacher answered none of the {len(sequences.requests)} rows of {sequences.name}")
    return cache.view(keys, dataset=sequences.name, k=sequences.k)


def _filtered(
    stage: StageConfig, *, view: CacheView, teacher: Teacher, cache: TeacherCache, prompts: Sequence[Prompt]
) -> Filtered:
    def text(ids: tuple[int, ...]) -> str:
        words: str = teacher.files.tokenizer.decode(ids, skip_special_tokens=True)
        return words

    gold = {prompt.prompt_ids: text(prompt.gold_ids) for prompt in prompts if prompt.gold_ids is not None}
    pieces = np.split(np.arange(len(view)), range(ROWS_PER_READ, len(view), ROWS_PER_READ))
    records = (record for block in cache.iter_blocks(view, pieces) for record in block)
    return apply_filters(records, filters=stage.filters, text=text, gold=gold)


def _report(stage: StageConfig, result: Filtered, *, journal: Journal) -> None:
    journal.console.say(f"Filters of {stage.train_view}: {result}")
    left_out = {f"filters/{stage.train_view}/{_slug(reason)}": float(n) for reason, n in result.left_out.items()}
    journal.tracker.log_final("fill", left_out)


def _slug(reason: str) -> str:
    return reason.lower().replace(" ", "_")
