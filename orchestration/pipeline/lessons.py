"""What one teacher said, pinned for its students.

A lesson is the teacher's (or an assistant's) part of the cache and the views of it that students are trained on and
measured against. Views are kept in the run directory; a stage with filters has a view of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache import CacheView, GenerateRequest, TeacherCache
from cache.answers import Request
from cache.narrowed import SUFFIX, NarrowedCache, NarrowedView
from cache.protocols import RecordReader
from configs import CacheError, DataError
from configs.stages import StageConfig
from orchestration.inputs.own_prompts import OwnPrompts
from orchestration.inputs.prompts import Prompt, tokens_digest
from orchestration.inputs.teachers import Teacher
from orchestration.pipeline.filters import Filtered, apply_filters
from orchestration.pipeline.run import Journal
from orchestration.plan.requests import SequenceSet
from student_train.feed.turns import Turns, take_turns

ROWS_PER_READ = 1024

ROWS_PER_LOOKUP = 65_536

TEST_VIEW = "teacher-test"
"""What all students are compared on."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """The pinned views of one teacher by name ("teacher-train"), and the files they are kept in.

    `reader` is what reads them. `turns` say which rows of its view a stage reads in which epoch, by the names that
    stages have for them. `tests` are the requests that the rows of the test view answer, in their order. Where the
    teacher was shown more than its students see, `told` are the views as it answered them, and `shown` the students'
    prompts by what it saw in their place; views and files are those of students. Of a lesson that several teachers gave
    `teacher` and `cache` are the first one's.
    """

    teacher: Teacher
    cache: TeacherCache
    views: Mapping[str, CacheView]
    paths: Mapping[str, Path]
    reader: RecordReader
    turns: Mapping[str, Turns] = field(default_factory=dict)
    tests: tuple[Request, ...] = ()
    told: Mapping[str, CacheView] = field(default_factory=dict)
    shown: Mapping[Ids, Ids] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """Of everything that stages learn from and are measured on, by its name."""
        views = {name: view.digest for name, view in self.views.items()}
        return views | {name: turns.digest for name, turns in self.turns.items()}

    def turns_of(self, stage: StageConfig) -> Turns | None:
        """The turns of a stage; None where every epoch reads all rows."""
        return None if stage.turns is None else self.turns[stage.turns]


def pin_lesson(
    sets: Sequence[SequenceSet],
    *,
    journal: Journal,
    teacher: Teacher,
    cache: TeacherCache,
    stages: Sequence[StageConfig],
    prompts: Mapping[str, Sequence[Prompt]],
    folder: Path,
) -> Lesson:
    """Pin what `stages` read, and write it below `folder`. `prompts` are those of every split.

    A set without any request is left out.

    Raises:
        CacheError: a set has no row at all.
        DataError: filters leave no row.
    """
    answered = {sequences.name: _answered(sequences, cache=cache) for sequences in sets if sequences.requests}
    views = {
        sequences.name: cache.view([*answered[sequences.name]], dataset=sequences.name, k=sequences.k)
        for sequences in sets
        if sequences.requests
    }
    for stage in stages:
        if stage.train_view not in views:
            whole = views[f"{stage.source}-train"]
            result = _filtered(stage, view=whole, teacher=teacher, cache=cache, prompts=prompts["train"])
            _report(stage, result, journal=journal)
            if not result.keys:
                raise DataError(f"filters leave none of the {len(whole):,} sequences of {whole.dataset}: {result}")
            views[stage.train_view] = cache.view(result.keys, dataset=stage.train_view, k=whole.k)
    requests = {sequences.name: sequences.requests for sequences in sets}
    turns = {
        stage.turns: _turns(stage, requests[f"{stage.source}-train"], view=views[stage.train_view], cache=cache)
        for stage in stages
        if stage.turns is not None
    }
    shown = OwnPrompts(
        (each.asked_ids, each.prompt_ids) for rows in prompts.values() for each in rows if each.wide_ids is not None
    )
    # Around windows of plain text nothing is shown to anybody.
    behind_prompts = [name for name in views if shown and not name.startswith("plain-")]
    narrowed = {name: NarrowedView.of(views[name], cache=cache, prompts=shown) for name in behind_prompts}
    paths = _saved({**views, **narrowed}, turns, folder=folder)
    return Lesson(
        teacher,
        cache,
        views | {name: view.rows for name, view in narrowed.items()},
        paths,
        reader=NarrowedCache(cache, narrowed.values()) if narrowed else cache,
        turns=turns,
        tests=tuple(requests[TEST_VIEW][at] for at in answered.get(TEST_VIEW, {}).values()),
        told={name: views[name] for name in narrowed},
        shown=shown,
    )


def _saved(
    views: Mapping[str, CacheView | NarrowedView], turns: Mapping[str, Turns], *, folder: Path
) -> dict[str, Path]:
    """Where views and turns lie, by name, once they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.safetensors" for name in turns}
    for name, table in turns.items():
        table.save(paths[name])
    for name, view in views.items():
        paths[name] = folder / f"{name}{SUFFIX if isinstance(view, NarrowedView) else '.npz'}"
        view.save(paths[name])
    return paths


def _turns(stage: StageConfig, requests: Sequence[Request], *, view: CacheView, cache: TeacherCache) -> Turns:
    """Which rows of the view each epoch reads: one answer to every prompt, whose answers take turns.

    One that the teacher refused, or that filters left out, is stood for by the next answer to that prompt.
    """
    assert stage.views is not None
    rows = {bytes(key): row for row, key in enumerate(view.keys)}
    answers: dict[bytes, list[int | None]] = {}
    for first in range(0, len(requests), ROWS_PER_LOOKUP):
        asked = requests[first : first + ROWS_PER_LOOKUP]
        for request, key in zip(asked, cache.lookup(asked, k=view.k), strict=True):
            assert isinstance(request, GenerateRequest)
            # A prompt that stands twice among the rows is asked the same, and read once.
            known = answers.setdefault(tokens_digest(request.prompt_ids), [])
            if request.replicate == len(known):
                known.append(None if key is None else rows.get(key))
    return take_turns(list(answers.values()), views=stage.views)


def _answered(sequences: SequenceSet, *, cache: TeacherCache) -> dict[bytes, int]:
    """The key of each row, with the place of the first request that it answers: prompts may stand twice in the data."""
    found: dict[bytes, int] = {}
    for first in range(0, len(sequences.requests), ROWS_PER_LOOKUP):
        asked = sequences.requests[first : first + ROWS_PER_LOOKUP]
        for at, (request, key) in enumerate(zip(asked, cache.lookup(asked, k=sequences.k), strict=True), first):
            if key is not None and request not in sequences.left_out:
                found.setdefault(key, at)
    if not found:
        raise CacheError(f"the teacher answered none of the {len(sequences.requests)} rows of {sequences.name}")
    return found


def _filtered(
    stage: StageConfig, *, view: CacheView, teacher: Teacher, cache: TeacherCache, prompts: Sequence[Prompt]
) -> Filtered:
    def text(ids: tuple[int, ...]) -> str:
        words: str = teacher.files.tokenizer.decode(ids, skip_special_tokens=True)
        return words

    gold = {prompt.asked_ids: text(prompt.gold_ids) for prompt in prompts if prompt.gold_ids is not None}
    pieces = np.split(np.arange(len(view)), range(ROWS_PER_READ, len(view), ROWS_PER_READ))
    records = (record for block in cache.iter_blocks(view, pieces) for record in block)
    return apply_filters(records, filters=stage.filters, text=text, gold=gold)


def _report(stage: StageConfig, result: Filtered, *, journal: Journal) -> None:
    journal.console.say(f"Filters of {stage.train_view}: {result}")
    left_out = {f"filters/{stage.train_view}/{_slug(reason)}": float(n) for reason, n in result.left_out.items()}
    journal.tracker.log_final("fill", left_out)


def _slug(reason: str) -> str:
    return reason.lower().replace(" ", "_")
