from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hostile_results import HOSTILE, hostile
from results_builders import finished_run, with_holes

from evaluation.report.analysis import GAPS_SHOWN, analysis_section
from evaluation.report.blocks import Block, Folded, Paragraph, Sample, Table
from evaluation.report.merging import parts_of
from evaluation.report.numbers import MISSING
from evaluation.results import FinalScores, ModelResults, RunResults, TaskExample

LABELS = ("order", "return")


def example(row: int, gold: str, predicted: str | None, *, sure: float, pair: str | None = None) -> TaskExample:
    read = None if predicted is None else (predicted,)
    return TaskExample(row, 0, f"message {row}", (gold,), predicted or "hm", read, sure, 10 + row, pair)


def run_of(teacher: str, student: str, *, sure: float = 0.9, pairs: bool = False) -> RunResults:
    """Letters: what is answered to rows whose label is, in turn, `order` and `return` ("?": nothing readable)."""
    read = {"o": "order", "r": "return", "?": None}
    run = finished_run(prompts=1, students={"kd": "kd"})
    answers = {"teacher": teacher, "kd": student, "untouched": student}

    def with_answers(model: ModelResults) -> ModelResults:
        examples = tuple(
            example(row, LABELS[row % 2], read[letter], sure=sure - 0.01 * row, pair=f"{row // 2}" if pairs else None)
            for row, letter in enumerate(answers[model.name])
        )
        return replace(model, tasks=(FinalScores("intents", "text", examples),))

    return replace(run, models=tuple(map(with_answers, run.models)), tasks=run.tasks[:1])


def with_shown(model: ModelResults) -> ModelResults:
    """Its rows are hostile text."""
    (scores,) = model.tasks
    examples = tuple(replace(each, shown=HOSTILE[2]) for each in scores.examples)
    return replace(model, tasks=(replace(scores, examples=examples),))


def blocks(run: RunResults) -> tuple[Block, ...]:
    return analysis_section(parts_of([run])[0]).blocks


def test_who_is_right_where_and_which_mistakes_are_shared() -> None:
    # Right would be ororor: the teacher misses rows 4 and 5, the student 2, 3 and 4.
    _, hits, *_ = blocks(run_of("ororr?", "orrorr"))
    assert isinstance(hits, Table)
    (row,) = hits.rows
    assert [cell.text for cell in row.cells[:4]] == ["2", "2", "1", "1"]
    assert (row.cells[4].text, row.cells[4].note) == ("50.0 %", "1, 1 with the same answer")
    assert row.cells[5].text == "+1.00" and row.cells[5].note == "Spearman +1.00, n = 6"
    assert [column.title for column in hits.columns][-1] == "confidences"


def test_what_is_kept_in_all_by_class_and_by_length() -> None:
    _, _, kept, words, _ = blocks(run_of("ororor", "ororrr"))
    assert isinstance(kept, Table) and isinstance(words, Paragraph)
    assert [(column.title, column.note) for column in kept.columns] == [
        ("all", "accuracy"), ("middling", "50 in train"), ("frequent", "120 in train"),
        ("short", "10 to 11 tokens"), ("middling", "12 to 13 tokens"), ("long", "14 to 15 tokens"),
    ]  # fmt: skip
    assert [cell.text for cell in kept.rows[0].cells] == ["83.3 %", "100.0 %", "66.7 %", "100.0 %", "100.0 %", "50.0 %"]
    assert kept.rows[0].cells[2].note == "0.67 of 1.00, n = 3"
    assert words.text == (
        "intents: 6 answers of both; right: the label is right. Not known, or not in this task: minimal pairs."
    )


def test_minimal_pairs_have_columns_where_there_are_any() -> None:
    _, hits, *_ = blocks(run_of("ororor", "oooror", pairs=True))
    assert isinstance(hits, Table)
    assert [column.title for column in hits.columns[-2:]] == ["minimal pairs", "told apart"]
    right, told_apart = hits.rows[0].cells[-2:]
    assert (right.text, right.note) == ("2 of 3", "teacher 3")
    assert (told_apart.text, told_apart.note) == ("2 of 3", "teacher 3")


def test_the_worst_gaps_are_folded_and_have_their_text() -> None:
    *_, folded = blocks(run_of("ororor", "ro?oro"))
    assert isinstance(folded, Folded) and len(folded.blocks) == GAPS_SHOWN
    first = folded.blocks[0]
    assert isinstance(first, Sample) and not first.opened and first.prompt == "message 0"
    assert first.title == "kd, row 0 (0.90 sure, its teacher 0.90)"
    said = [(answer.model, answer.number, [piece.text for piece in answer.pieces]) for answer in first.answers]
    assert said == [("right", None, ["order"]), ("teacher", 0, ["order"]), ("kd", 2, ["return"])]


def test_what_is_missing_is_said() -> None:
    _, hits, kept, words, gaps = blocks(run_of("rrrr", "oooo", sure=math.nan))
    assert isinstance(hits, Table) and isinstance(words, Paragraph)
    assert hits.rows[0].cells[5].text == MISSING and "their confidences" in words.text
    assert isinstance(kept, Table) and "undefined" in {cell.text for cell in kept.rows[0].cells}
    assert isinstance(gaps, Folded)
    *_, none = blocks(run_of("or", "or"))
    assert none == Paragraph("intents: there is no row on which the teacher is right and a student is not.")


@pytest.mark.parametrize(
    ("silent", "sentence"),
    [
        ("teacher", "intents: the teacher did not answer it, so that nothing can be held against it."),
        ("kd", "intents: no answer to the same rows as the teacher's from kd."),
    ],
)
def test_a_model_without_answers_is_named(silent: str, sentence: str) -> None:
    run = run_of("or", "or")
    models = tuple(replace(model, tasks=() if model.name == silent else model.tasks) for model in run.models)
    assert blocks(replace(run, models=models))[1:] == (Paragraph(sentence),)


def test_without_students_or_tasks_it_says_so() -> None:
    run = run_of("or", "or")
    alone = blocks(replace(run, models=run.models[:1]))
    assert alone[-1] == Paragraph("intents: there is no student to hold against the teacher.")
    (block,) = blocks(with_holes(run))
    assert isinstance(block, Paragraph) and block.text.startswith("No task was run")


def test_hostile_rows_are_cut_and_made_visible() -> None:
    run = run_of("or", "ro")
    strange = FinalScores(
        "intents", "text", (replace(example(0, "order", "return", sure=0.9), shown=HOSTILE[2], answer="x" * 10**6),)
    )
    teacher, untouched, student = run.models
    *_, folded = blocks(replace(run, models=(with_shown(teacher), untouched, replace(student, tasks=(strange,)))))
    assert isinstance(folded, Folded)
    (gap,) = folded.blocks
    assert isinstance(gap, Sample)
    assert gap.prompt == "\\u202e backwards \\u2066 isolated \\u200b zero \\ufeff width \\x1b[31m red \\x07"
    (piece,) = gap.answers[-1].pieces
    assert len(piece.text) + gap.answers[-1].left_out == 10**6 and gap.answers[-1].left_out > 0


def test_hostile_runs_take_no_time() -> None:
    assert len(str(blocks(hostile(finished_run(prompts=1))))) < 1_000_000
