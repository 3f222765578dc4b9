"""What each student took over from its teacher, task by task: who is right where, what is kept, and the worst gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.analysis import Gap, HitTable, PairsAnswered, Retention, Slice, TaskAnalysis, analyse
from evaluation.report.blocks import Answer, Block, Cell, Column, Folded, Paragraph, Piece, Row, Sample, Section, Table
from evaluation.report.merging import Part
from evaluation.report.numbers import MISSING, interval, written
from evaluation.report.samples import shown
from evaluation.results import FinalScores, ModelResults, TaskExample, TaskFacts

GAPS_SHOWN = 3
"""Gaps of each student that a page shows the text of; `distill compare` writes down more."""

UNDEFINED = "undefined"
NONE = "none"

Found = Sequence[tuple[ModelResults, TaskAnalysis]]
"""Students beside their teacher on one task."""


def analysis_section(part: Part) -> Section:
    """Two tables a task with a row a student, and the rows on which students fall furthest behind."""
    title = "What the students took over"
    if not part.results.tasks:
        return Section(
            "analysis", title, (Paragraph("No task was run on which student and teacher could be compared."),)
        )
    blocks: list[Block] = [
        Paragraph(
            "Every student beside its teacher, on the answers that both gave. A student that is right where its "
            "teacher is wrong knows something else; one that repeats its mistakes has learned them."
        )
    ]
    for facts in part.results.tasks:
        blocks += _task(part, facts)
    return Section("analysis", title, tuple(blocks))


def _task(part: Part, facts: TaskFacts) -> list[Block]:
    teacher = next((model for model in part.results.models if model.role == "teacher"), None)
    theirs = None if teacher is None else _scores(teacher, facts)
    if teacher is None or theirs is None:
        return [Paragraph(f"{facts.name}: the teacher did not answer it, so that nothing can be held against it.")]
    students = [model for model in part.results.models if model.role == "student"]
    both = [(student, ours) for student in students if (ours := _scores(student, facts)) is not None]
    found = [(student, analyse(facts, teacher=theirs, student=ours)) for student, ours in both]
    found = [(student, each) for student, each in found if each.answers]
    able = {student.name for student, _ in found}
    lost = [student.name for student in students if student.name not in able]
    blocks: list[Block] = []
    if found:
        words = Paragraph(_in_words(facts, found))
        blocks += [
            _hits_table(part, facts, found),
            _kept_table(part, facts, found),
            words,
            _gaps(part, facts, teacher, found),
        ]
    if lost:
        blocks.append(Paragraph(f"{facts.name}: no answer to the same rows as the teacher's from {', '.join(lost)}."))
    return blocks or [Paragraph(f"{facts.name}: there is no student to hold against the teacher.")]


def _scores(model: ModelResults, facts: TaskFacts) -> FinalScores | None:
    return next((scores for scores in model.tasks if scores.task == facts.name and scores.examples), None)


def _hits_table(part: Part, facts: TaskFacts, found: Found) -> Table:
    """The two-by-two of hits and misses with what lies behind it."""
    paired = any(each.pairs is not None for _, each in found)
    columns = (
        Column("both right", "answers"),
        Column("teacher alone", "is right"),
        Column("student alone", "is right"),
        Column("neither", "is right"),
        Column("shared mistakes", "of the teacher's"),
        Column("confidences", "Pearson"),
        *((Column("minimal pairs", "both right"), Column("told apart", "of those to be")) if paired else ()),
    )
    rows = []
    for student, each in found:
        cells = [*_hits(each.hits), _confidence(each), *(_pairs(each.pairs) if paired else ())]
        rows.append(Row(student.name, tuple(cells), number=part.numbers[student.name]))
    return Table(f"{facts.name}: hits and misses of student and teacher", "student", columns, tuple(rows))


def _hits(hits: HitTable) -> list[Cell]:
    def share(count: int) -> Cell:
        return Cell(f"{count}", written(count / hits.n, "fraction"))

    shared = Cell(NONE, "the teacher makes none")
    if hits.student_only + hits.neither:
        same = f"{hits.neither}, {hits.same_mistake} with the same answer"
        shared = Cell(written(hits.mistakes_shared, "fraction"), same)
    return [*map(share, (hits.both, hits.teacher_only, hits.student_only, hits.neither)), shared]


def _confidence(found: TaskAnalysis) -> Cell:
    confidence = found.confidence
    if not confidence.n:
        return Cell(MISSING)
    return Cell(_correlation(confidence.pearson), f"Spearman {_correlation(confidence.spearman)}, n = {confidence.n}")


def _correlation(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else UNDEFINED


def _pairs(pairs: PairsAnswered | None) -> tuple[Cell, Cell]:
    if pairs is None:
        return Cell(MISSING), Cell(MISSING)
    right = Cell(f"{pairs.student_right} of {pairs.pairs}", f"teacher {pairs.teacher_right}")
    return right, Cell(f"{pairs.student_changes} of {pairs.should_change}", f"teacher {pairs.teacher_changes}")


def _kept_table(part: Part, facts: TaskFacts, found: Found) -> Table:
    """What a student keeps of its teacher's score: in all, by class frequency, by length."""
    names = list(dict.fromkeys(piece.name for _, each in found for piece in _slices(each)))
    rows = []
    for student, each in found:
        slices = {piece.name: piece for piece in _slices(each)}
        cells = (_kept(each.retention), *(_slice(slices.get(name)) for name in names))
        rows.append(Row(student.name, cells, number=part.numbers[student.name]))
    columns = (Column("all", facts.metric.replace("_", " ")), *map(_slice_column, names))
    return Table(f"{facts.name}: what is kept of the teacher's score", "student", columns, tuple(rows))


def _slices(found: TaskAnalysis) -> tuple[Slice, ...]:
    return (*found.by_class_frequency, *found.by_length)


def _slice_column(name: str) -> Column:
    title, _, bounds = name.partition(" (")
    return Column(title, bounds.removesuffix(")"))


def _kept(kept: Retention | None) -> Cell:
    if kept is None or not math.isfinite(kept.value):
        return Cell(UNDEFINED, "the teacher scores nothing")
    return Cell(written(kept.value, "fraction"), interval(kept.interval.low, kept.interval.high, "fraction"))


def _slice(piece: Slice | None) -> Cell:
    if piece is None:
        return Cell(MISSING)
    kept = written(piece.retention, "fraction") if math.isfinite(piece.retention) else UNDEFINED
    return Cell(kept, f"{piece.student:.2f} of {piece.teacher:.2f}, n = {piece.n}")


def _in_words(facts: TaskFacts, found: Found) -> str:
    """What counts as right, and what the tables do not have."""
    first = found[0][1]
    sentences = [f"{facts.name}: {first.answers} answers of both; right: {first.hit}."]
    missing = {
        "their confidences": not any(each.confidence.n for _, each in found),
        "classes by how often train has them": not any(each.by_class_frequency for _, each in found),
        "prompts of different lengths": not any(each.by_length for _, each in found),
        "minimal pairs": not any(each.pairs for _, each in found),
    }
    absent = [what for what, lacks in missing.items() if lacks]
    if absent:
        sentences.append(f"Not known, or not in this task: {', '.join(absent)}.")
    return " ".join(sentences)


def _gaps(part: Part, facts: TaskFacts, teacher: ModelResults, found: Found) -> Block:
    samples = [_gap(part, teacher, student, gap) for student, each in found for gap in each.gaps[:GAPS_SHOWN]]
    if not samples:
        return Paragraph(f"{facts.name}: there is no row on which the teacher is right and a student is not.")
    return Folded(
        f"{facts.name}: the worst gaps, rows on which the teacher is right and a student is not", tuple(samples)
    )


def _gap(part: Part, teacher: ModelResults, student: ModelResults, gap: Gap) -> Sample:
    sure = ""
    if math.isfinite(gap.confidence_gap):
        sure = f" ({gap.student.confidence:.2f} sure, its teacher {gap.teacher.confidence:.2f})"
    answers = (
        _said("right", None, ", ".join(gap.teacher.gold)),
        _said(teacher.name, part.numbers[teacher.name], _answer(gap.teacher)),
        _said(student.name, part.numbers[student.name], _answer(gap.student)),
    )
    prompt, _ = shown(gap.teacher.shown)
    return Sample(f"{student.name}, row {gap.teacher.row}{sure}", prompt, answers, opened=False)


def _said(name: str, number: int | None, text: str) -> Answer:
    kept, left_out = shown(text)
    return Answer(name, number, (Piece(kept, differs=False),) if kept else (), left_out)


def _answer(example: TaskExample) -> str:
    """Its text; of a task head, which writes none, what it predicts."""
    return example.answer or ", ".join(example.predicted or ())
