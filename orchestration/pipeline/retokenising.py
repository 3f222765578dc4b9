"""A lesson as a student of another tokenizer reads it: the same answers by their text, in its own tokens.

An answer whose text does not survive is left out and counted: one that holds a mark between turns, ends within a
character, or does not come back from the student's tokenizer byte for byte. Nothing is asked of the teacher for it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cache import CacheView, TeacherRecord
from cache.protocols import RecordReader
from configs import DataError
from configs.stages import StageConfig
from orchestration.inputs.other_tokens import OtherTokens, coverage_in_words, judge_coverage
from orchestration.pipeline.lessons import ROWS_PER_READ, Lesson
from orchestration.pipeline.run import Journal
from orchestration.pipeline.starts import Start
from student_train.feed.retokenised import Retokenised
from student_train.losses.alignment import Coverage, common_chunks, coverage_of, with_end


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A view in a student's tokens, how well both tokenizers go together on it, and what was left out, by reason."""

    texts: Retokenised
    coverage: Coverage
    left_out: Mapping[str, int]


def lesson_of(name: str, start: Start, *, lesson: Lesson, stages: Sequence[StageConfig], journal: Journal) -> Lesson:
    """The lesson as this student reads it: as it is, where it has the teacher's tokens.

    Raises:
        DataError: nothing is left of a view, or too little of it can be compared.
    """
    tokens = start.tokens
    if tokens is None:
        return lesson
    views, paths = {}, {}
    for view in dict.fromkeys(each for stage in stages for each in (stage.train_view, stage.dev_view)):
        reading = retokenise(
            lesson.views[view],
            cache=lesson.reader,
            tokens=tokens,
            stop_ids=lesson.teacher.files.stop_ids,
            positions=start.shape.max_positions,
        )
        _report(name, view, reading, journal=journal)
        readers = [stage for stage in stages if stage.train_view == view]
        for warning in judge_coverage(
            name, reading.coverage, readers, student=tokens.files, teacher=lesson.teacher.files
        ):
            journal.console.warn(warning)
        paths[view] = lesson.paths[view].with_name(f"{view}-{name}.safetensors")
        reading.texts.save(paths[view])
        views[view] = reading.texts.sizes
    return replace(lesson, views=views, paths=paths)


def retokenise(
    view: CacheView, *, cache: RecordReader, tokens: OtherTokens, stop_ids: tuple[int, ...], positions: int
) -> Reading:
    """Every row of a view that a student of at most `positions` tokens can read; `stop_ids` end the teacher's answers.

    Raises:
        DataError: there is none.
    """
    pieces = np.split(np.arange(len(view)), range(ROWS_PER_READ, len(view), ROWS_PER_READ))
    kept, read = array("q"), _Read()
    coverage, left_out = Coverage(), Counter[str]()
    for block, records in zip(pieces, cache.iter_blocks(view, pieces), strict=True):
        for at, record in zip(block.tolist(), records, strict=True):
            row = _row(record, tokens=tokens, stop_ids=stop_ids, positions=positions)
            if isinstance(row, str):
                left_out[row] += 1
                coverage += Coverage(texts=1, lost=1)
            else:
                kept.append(at)
                read.append(row)
                coverage += row.coverage
    if not kept:
        raise DataError(
            f"{view.dataset}: none of its {len(view):,} answers can be read by {tokens.files.label}: {dict(left_out)}"
        )
    texts = Retokenised(
        view=_some(view, kept),
        token_ids=np.array(read.token_ids, dtype=np.int32),
        token_offsets=np.array(read.token_offsets, dtype=np.int64),
        prompt_len=np.array(read.prompt_len, dtype=np.int32),
        teacher_ends=np.array(read.teacher_ends, dtype=np.int32),
        student_ends=np.array(read.student_ends, dtype=np.int32),
        vocabulary=tokens.vocabulary,
    )
    return Reading(texts, coverage, dict(left_out))


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What was read of all rows so far, as numbers: an object each would take ten times as much."""

    token_ids: array[int] = field(default_factory=lambda: array("i"))
    token_offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    prompt_len: array[int] = field(default_factory=lambda: array("i"))
    teacher_ends: array[int] = field(default_factory=lambda: array("i"))
    student_ends: array[int] = field(default_factory=lambda: array("i"))

    def append(self, row: _Row) -> None:
        """Add a row behind the others."""
        self.token_ids.extend(row.token_ids)
        self.token_offsets.append(len(self.token_ids))
        self.prompt_len.append(row.prompt_len)
        self.teacher_ends.extend(row.teacher_ends.tolist())
        self.student_ends.extend(row.student_ends.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    token_ids: Sequence[int]
    prompt_len: int
    teacher_ends: np.ndarray
    student_ends: np.ndarray
    coverage: Coverage


def _row(record: TeacherRecord, *, tokens: OtherTokens, stop_ids: tuple[int, ...], positions: int) -> _Row | str:
    """One answer in the student's tokens, or why there is none."""
    prompt = tokens.prompts.get(tuple(record.token_ids[: record.prompt_len].tolist()))
    if prompt is None:
        return "whose prompt the student cannot be given"
    ids = record.response_ids.tolist()
    ended = bool(ids) and ids[-1] in stop_ids
    words = ids[:-1] if ended else ids
    text = tokens.teacher.text(words)
    if text is None:
        return "with a mark between turns, or broken off within a character"
    own = tokens.encode(text)
    theirs, ours = tokens.teacher.ends(words, text=text), tokens.student.ends(own, text=text)
    if theirs is None or ours is None:
        return "that do not come back from the student's tokenizer"
    size = len(text.encode())
    coverage = coverage_of(common_chunks(theirs, ours), teacher_ends=theirs, text_bytes=size)
    if ended:
        own = [*own, tokens.end]
        theirs, ours = (with_end(each, text_bytes=size) for each in (theirs, ours))
    if not own:
        return "without any text"
    if len(prompt) + len(own) > positions:
        return f"longer than the student's {positions:,} positions"
    return _Row([*prompt, *own], len(prompt), theirs, ours, coverage)


def _some(view: CacheView, rows: Sequence[int]) -> CacheView:
    """A view of some of the rows."""
    at = np.array(rows, dtype=np.int64)
    names = ("keys", "row_ids", "segment", "row", "prompt_len", "lengths", "finish")
    return replace(view, **{name: getattr(view, name)[at] for name in names})


def _report(name: str, view: str, reading: Reading, *, journal: Journal) -> None:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in reading.left_out.items())
    left_out = f"; left out: {reasons}" if reasons else ""
    journal.console.say(
        f"{name} reads {len(reading.texts):,} answers of {view} in its own tokens: "
        f"{coverage_in_words(reading.coverage)}{left_out}"
    )
