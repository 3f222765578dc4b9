"""What a student learned from, row by row, and rows of the same kind that it never learned from.

Members are the rows of the student's train views that its steps have read, in whatever words they were learned: the
teacher's answers, gold ones. Others are the dev and test rows of the same data with answers of the same source. The two
are not told apart by anything but membership, as far as the run can say; what differs nevertheless is a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache import CacheView, TeacherRecord
from cache.combined import SUFFIX as COMBINED
from cache.combined import CombinedView
from cache.disk.directory import read_identity
from cache.disk.roots import open_storage
from cache.narrowed import SUFFIX as NARROWED
from cache.narrowed import NarrowedView
from cache.opening import open_view, reader_of, rows_of
from configs import ConfigError, DataError
from configs.stages import FilterConfig, StageConfig
from orchestration.audits.finished import AuditedStudent, FinishedRun
from orchestration.audits.own_tokens import OwnTokens
from orchestration.audits.rests_on import TEST_VIEW
from student_train.feed.retokenised import Retokenised
from student_train.feed.steps import total_steps, training_batches
from student_train.feed.turns import Turns

VIEW_FILES = (COMBINED, NARROWED, ".npz")
"""Endings of the file of a view; where there are several, the first is what students read."""

OWN = ".safetensors"
"""The ending of the file of a view in the tokens of one student."""

ROWS_PER_READ = 1024

WORDS = {"teacher": "the teacher's answers", "gold": "gold answers"}
"""What a source of sequences holds, in words."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Of one source of answers: the rows that a student learned from, and those that it did not.

    `views` are the digests of the views that these come from, by name. Where the student has another tokenizer than
    its teacher the rows are in its own tokens, and `told` has the teacher's by their keys.
    """

    source: str
    members: tuple[TeacherRecord, ...]
    others: tuple[TeacherRecord, ...]
    views: dict[str, str]
    notes: tuple[str, ...]
    told: Mapping[bytes, TeacherRecord] | None = None


def learned_by(student: AuditedStudent, run: FinishedRun) -> tuple[Learned, ...]:
    """What a student learned from, one for each source of answers.

    Raises:
        DataError: it learned from no answers at all, or what it read in tokens of its own cannot be read.
        ConfigError: a view names other rows than it did.
        CacheError: a view cannot be read, or its rows have left the cache.
    """
    folder = Views(run, student.settings.teacher or "")
    own = OwnTokens.of(student, run) if has_own_tokens(student, run) else None
    sources = dict.fromkeys(stage.source for stage in student.settings.stages if stage.source in WORDS)
    if not sources:
        raise DataError("it learned from plain text alone, of which the run keeps no answers")
    found = (_of_source(source, student, folder) for source in sources)
    return tuple(found if own is None else (_in_own_tokens(each, own) for each in found))


def learned_by_both(one: Learned, other: Learned) -> Learned:
    """The rows that two students have learned, beside those that neither has; the order is that of the first."""
    members = {record.key for record in other.members}
    others = {record.key for record in other.others}
    return replace(
        one,
        members=tuple(record for record in one.members if record.key in members),
        others=tuple(record for record in one.others if record.key in others),
        notes=(),
    )


def has_own_tokens(student: AuditedStudent, run: FinishedRun) -> bool:
    """Whether a student has read its rows in tokens of its own, which the run keeps beside the views."""
    folder = Views(run, student.settings.teacher or "")
    return any(folder.path(f"{stage.train_view}-{student.name}", OWN) for stage in student.settings.stages)


def _in_own_tokens(learned: Learned, own: OwnTokens) -> Learned:
    """The same rows in the student's tokens; one that does not come back from its tokenizer is left out, and said."""
    told = {record.key: record for record in (*learned.members, *learned.others)}
    members, others = (
        tuple(read for record in records if (read := own.read(record)) is not None)
        for records in (learned.members, learned.others)
    )
    lost = len(told) - len(members) - len(others)
    notes = ["it was asked in its own tokens, about whole answers: likelihoods are of the same text, in nats a byte"]
    if lost:
        notes.append(f"{lost:,} rows do not come back from its tokenizer and were left out")
    return replace(learned, members=members, others=others, told=told, notes=(*learned.notes, *notes))


@dataclass(frozen=True, slots=True)
class Views:
    """The views that a run kept of the teacher, or of the student that taught in its place (`teacher`)."""

    run: FinishedRun
    teacher: str

    def path(self, name: str, *endings: str) -> Path | None:
        """The file of this name, if there is one."""
        folder = self.run.directory / "views" / self.teacher
        files = [folder / f"{name}{ending}" for ending in endings or VIEW_FILES]
        return next((path for path in files if path.is_file()), None)

    def open(self, path: Path) -> tuple[CacheView, tuple[TeacherRecord, ...]]:
        """A view and its records, in order.

        Raises:
            ConfigError: it names other rows than those that the comparison rests on.
            CacheError: it cannot be read, or its rows have left the cache.
        """
        view, root = open_view(path), self.run.config.runtime.cache_root
        rows = rows_of(view)
        if self.run.views.get(str(path.relative_to(self.run.directory / "views"))) != rows.digest:
            raise ConfigError(f"{path} names other rows than those that were compared on: run the experiment again")
        if isinstance(view, CombinedView):
            identity = view.parts[0].identity
        else:
            told = view.view.identity if isinstance(view, NarrowedView) else view.identity
            identity = read_identity(open_storage(root, told, create=False))
        reader = reader_of([view], root=root, identity=identity)
        pieces = np.split(np.arange(len(rows)), range(ROWS_PER_READ, len(rows), ROWS_PER_READ))
        return rows, tuple(record for block in reader.iter_blocks(rows, pieces) for record in block)

    def turns(self, stage: StageConfig) -> Turns | None:
        """Which rows each epoch of a stage reads; None where that is all of them."""
        path = None if stage.turns is None else self.path(stage.turns, ".safetensors")
        return None if path is None else Turns.load(path)


def _of_source(source: str, student: AuditedStudent, folder: Views) -> Learned:
    stages = student.settings.stages
    members: dict[bytes, TeacherRecord] = {}
    digests, notes = {}, []
    # What a student writes itself is kept nowhere as rows. Answers to the same prompts stand for it only where it
    # learned from nothing else of this source: beside rows that it has read they would be members that are none.
    read_rows = any(stage.source == source and stage.rollout is None for stage in stages)
    for at, stage in enumerate(stages):
        path = folder.path(stage.train_view)
        if stage.source != source or path is None:
            continue
        if stage.rollout is not None and read_rows:
            notes.append(f"{stage.objective} learned from what the student wrote itself, which was not asked about")
            continue
        rows, records = folder.open(path)
        digests[path.name] = rows.digest
        last = at == len(stages) - 1
        selected = student.selected_step if last else None
        own = folder.path(f"{stage.train_view}-{student.name}", OWN)
        if own is None:
            read = _read_in(stage, rows, folder.turns(stage), selected=selected)
        else:
            read = _read_in_own(stage, rows, Retokenised.load(own), selected=selected)
        members |= {records[row].key: records[row] for row in read}
        notes += _notes_of(stage, read=len(read), rows=len(rows))
    others: dict[bytes, TeacherRecord] = {}
    for name in (f"{source}-dev", TEST_VIEW) if source == "teacher" and not folder.teacher else (f"{source}-dev",):
        path = folder.path(name)
        if path is not None:
            rows, records = folder.open(path)
            digests[path.name] = rows.digest
            others |= {record.key: record for record in records if record.key not in members}
    return Learned(source, _answered(members), _answered(others), digests, tuple(dict.fromkeys(notes)))


def _answered(records: dict[bytes, TeacherRecord]) -> tuple[TeacherRecord, ...]:
    return tuple(record for record in records.values() if record.response_len > 0)


def _read_in(stage: StageConfig, view: CacheView, turns: Turns | None, *, selected: int | None) -> Sequence[int]:
    """The rows of a view that the steps of a stage have read, up to the one that was selected."""
    if stage.rollout is not None:
        return range(len(view))
    steps = total_steps(stage, view=view, turns=turns)
    steps = steps if selected is None else min(steps, selected)
    if steps == 0:
        return ()
    read = set[int]()
    for batch in training_batches(stage, view=view, first=0, steps=steps, turns=turns):
        read.update(batch.tolist())
        if len(read) == len(view):
            break
    return sorted(read)


def _read_in_own(stage: StageConfig, view: CacheView, own: Retokenised, *, selected: int | None) -> Sequence[int]:
    """The same of a student that reads some of the rows in tokens of its own.

    Raises:
        ConfigError: they are not of this view.
    """
    places = {bytes(key): row for row, key in enumerate(view.keys)}
    kept = [places.get(bytes(key)) for key in own.view.keys]
    if None in kept:
        raise ConfigError(f"{own.view.dataset} was read in other tokens from rows that are not in it: run it again")
    return sorted(row for at in _read_in(stage, own.sizes, None, selected=selected) if (row := kept[at]) is not None)


def _notes_of(stage: StageConfig, *, read: int, rows: int) -> list[str]:
    notes = []
    if stage.rollout is not None:
        notes.append(
            f"{stage.objective} learned from what the student wrote itself to the training prompts; "
            "the teacher's answers to them stand for it"
        )
    if stage.filters != FilterConfig():
        notes.append(f"filters chose the rows that {stage.objective} learned from, and not the held-out ones")
    if read < rows and stage.rollout is None:
        notes.append(f"{stage.objective} read {read:,} of its {rows:,} training rows, and only those count as such")
    return notes
