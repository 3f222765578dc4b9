from __future__ import annotations

import re
from dataclasses import replace

from results_builders import finished_run, with_holes

from evaluation.qualities import qualities
from evaluation.report.blocks import Paragraph, Table
from evaluation.report.judged import judge
from evaluation.report.merging import parts_of
from evaluation.report.numbers import MISSING
from evaluation.report.tasks import tasks_section
from evaluation.results import FinalScores, RunResults


def blocks(run: RunResults) -> list[Table | Paragraph]:
    part = parts_of([run])[0]
    judged = [judge(replace(quality, headline=False), part) for quality in qualities(run) if quality.task]
    return [block for block in tasks_section(part, judged).blocks if isinstance(block, Table | Paragraph)]


def test_a_table_a_task_with_every_metric_and_the_answers_that_could_not_be_read() -> None:
    run = finished_run(prompts=2)
    table, _, other, _ = blocks(run)
    assert isinstance(table, Table) and isinstance(other, Table)
    assert table.caption.startswith("intents: classification, 60 test rows")
    assert [column.title for column in table.columns] == ["accuracy", "macro f1", "mcc", "not readable"]
    unread = [example for example in run.models[2].tasks[0].examples if example.predicted is None]
    assert (table.rows[2].cells[-1].text, table.rows[2].cells[-1].note) == (str(len(unread)), "of 60")
    assert table.rows[0].note == "by text"


def test_what_the_numbers_are_read_against() -> None:
    _, facts, *_ = blocks(finished_run(prompts=2))
    assert isinstance(facts, Paragraph)
    assert "best constant answer scores 30.0 % (accuracy)" in facts.text
    assert "of 60 test rows 1 also stand in the 200 train rows to the letter, 2 nearly" in facts.text
    assert "2 worked examples" in facts.text and "order 120" in facts.text


def test_a_task_without_train_rows_cannot_be_contaminated_by_them() -> None:
    run = finished_run(prompts=2)
    alone = replace(run.tasks[0], train_rows=0, few_shot=0, train_label_counts={})
    _, facts = blocks(replace(run, tasks=(alone,)))
    assert isinstance(facts, Paragraph)
    assert "no train rows" in facts.text and "worked examples" not in facts.text


def test_a_model_that_did_not_answer_is_said_so() -> None:
    run = finished_run(prompts=2)
    teacher, *others = run.models
    table, *_ = blocks(replace(run, models=(replace(teacher, tasks=()), *others)))
    assert isinstance(table, Table)
    assert {cell.text for cell in table.rows[0].cells} == {MISSING}


def answering(kind: str, predicted: tuple[str, ...], *, gold: tuple[str, ...], metric: str) -> RunResults:
    """The run with a single row of another kind of task."""
    run = finished_run(prompts=2)
    facts = replace(run.tasks[0], kind=kind, metric=metric, labels=("PER",), train_label_counts={})
    row = replace(run.models[0].tasks[0].examples[0], gold=gold, predicted=predicted)
    models = [replace(model, tasks=(FinalScores("intents", "text", (row,)),)) for model in run.models[:3]]
    return replace(run, tasks=(facts,), models=tuple(models))


def test_entities_that_stand_nowhere_are_named_by_model() -> None:
    run = answering("tagging", ("0 1 PER", "-1 -1 PER"), gold=("0 1 PER",), metric="entity_f1")
    exact = replace(run.models[0].tasks[0].examples[0], predicted=("0 1 PER",))
    teacher = replace(run.models[0], tasks=(FinalScores("intents", "text", (exact,)),))
    _, note, _ = blocks(replace(run, models=(teacher, *run.models[1:])))
    assert isinstance(note, Paragraph)
    assert note.text.endswith("do not stand in the row, which count as wrong: untouched 1, seqkd 1.")


def test_how_a_metric_is_computed_stands_under_the_table() -> None:
    run = answering("generation", ("The cat sat.",), gold=("The cat sat here.",), metric="bleu")
    texts = [block.text for block in blocks(run) if isinstance(block, Paragraph)]
    assert any(re.search(r"^How bleu is computed: nrefs:1\|.*\|tok:13a\|", text) for text in texts)
    assert any(text.startswith("How rouge l, rouge 1, rouge 2 is computed: rouge-score") for text in texts)
    assert any("How chrf is computed: nrefs:1|" in text for text in texts)


def test_without_tasks_it_says_so() -> None:
    assert blocks(with_holes(finished_run(prompts=2))) == [Paragraph("No task was run.")]
