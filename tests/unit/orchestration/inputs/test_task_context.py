"""What a teacher is shown beside a row comes from the row's own file, and never says what is gold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from task_builders import task_of
from task_files import write_task

from configs import ConfigError, DataError
from configs.task import TaskConfig
from configs.teacher_context import TeacherContext
from evaluation.tasks.surroundings import Surroundings, around_of
from orchestration.inputs.task_context import (
    ContextFile,
    require_room_for_context,
    rows_in_context,
    shows_text,
    task_in_context,
)
from orchestration.inputs.tasks import load_task

CLASSES = task_of("classification", labels=["good", "bad"])
TAGS = task_of("tagging", labels=["LOC"], template="{{ tokens | join(' ') }}")
SPANS = task_of("extractive_qa", template="{{ context }} {{ question }}")


def context(**values: Any) -> TeacherContext:
    return TeacherContext.model_validate(values)


def around(rows: list[Any], number: int, *, task: TaskConfig = CLASSES, **values: Any) -> Surroundings:
    return ContextFile(enumerate(rows), task=task, context=context(**values), name="train").around(number)


def texts(*each: str) -> list[dict[str, str]]:
    return [{"text": text, "label": "good"} for text in each]


def test_neighbours_stand_in_the_order_of_the_file() -> None:
    rows = texts("a", "b", "c", "d", "e")
    found = around(rows, 2, neighbours={"before": 2, "after": 1})
    assert found == Surroundings(before=(("a",), ("b",)), after=(("d",),))
    assert around(rows, 0, neighbours={"before": 2}) == Surroundings()
    assert around(rows, 4, neighbours={"before": 1, "after": 9}) == Surroundings(before=(("d",),))


def test_only_rows_of_the_same_value_are_neighbours() -> None:
    rows = [{"text": text, "doc": doc} for text, doc in (("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1))]
    found = around(rows, 2, neighbours={"before": 3, "after": 3, "within": "doc"})
    assert found == Surroundings(before=(("a",),), after=(("e",),))


def test_a_row_that_cannot_be_read_or_says_nothing_is_nobodys_neighbour() -> None:
    rows = [*texts("a"), "invalid JSON", {"text": "  "}, {"other": 1}, *texts("b")]
    assert around(rows, 4, neighbours={"before": 2}) == Surroundings(before=(("a",),))


def test_a_field_may_lie_inside_another() -> None:
    task = task_of("extractive_qa", template="{{ page }}", fields={"context": "page.text", "answers": "answers"})
    rows = [{"page": {"text": text}} for text in ("a", "b")] + [{"page": {}}]
    assert around(rows, 1, task=task, neighbours={"before": 1, "after": 1}) == Surroundings(before=(("a",),))


def test_no_label_of_a_neighbour_is_shown() -> None:
    task = task_of("classification", labels=["good", "bad"], template="{{ text }} {{ label }} {{ title }} {{ labels }}")
    rows = [{"text": "a", "label": "bad", "title": "t"}, {"text": "b", "label": "good", "title": "u"}]
    assert around(rows, 1, task=task, neighbours={"before": 1}) == Surroundings(before=(("a t",),))
    tagged = [
        {"tokens": ["a", "b"], "tags": ["B-LOC", "O"]},
        {"tokens": "c d", "tags": "O O"},
        {"tokens": 3},
        {"tokens": ["e"]},
    ]
    found = around(tagged, 1, task=TAGS, neighbours={"before": 1, "after": 1})
    assert found == Surroundings(before=(("a", "b"),), after=(("e",),))


def test_questions_about_one_passage_are_shown_other_passages_each_once() -> None:
    rows = [{"context": text, "question": "?", "answers": ["a"]} for text in ("x", "x", "a", "a", "a", "y", "y", "z")]
    found = around(rows, 3, task=SPANS, neighbours={"before": 2, "after": 2})
    assert found == Surroundings(before=(("x",),), after=(("y",), ("z",)))


def test_a_passage_belongs_to_its_row() -> None:
    assert around([{"text": "a", "more": " b c "}], 0, passage_field="more") == Surroundings(passage=("b c",))
    assert around([{"text": "a", "more": " "}], 0, passage_field="more") == Surroundings()
    assert around([{"text": "a", "in": {"parts": ["b", "c"]}}], 0, passage_field="in.parts").passage == ("b c",)
    tagged = around([{"tokens": ["a"], "more": "b c"}], 0, task=TAGS, passage_field="more")
    assert tagged == Surroundings(passage=("b", "c"))


def test_a_passage_that_holds_the_own_one_stands_on_both_sides_nearest() -> None:
    rows = [
        {"context": "p", "whole": "p"},
        {"context": "a rain", "whole": "the sun. a rain fell."},
        {"context": "q", "whole": "other"},
    ]
    both = {"passage_field": "whole", "neighbours": {"before": 1, "after": 1}}
    found = around(rows, 1, task=SPANS, **both)
    assert found == Surroundings(before=(("p",), ("the sun.",)), after=(("fell.",), ("q",)))
    assert around(rows, 0, task=SPANS, passage_field="whole") == Surroundings()
    assert around(rows, 2, task=SPANS, passage_field="whole") == Surroundings(passage=("other",))


def test_a_row_without_a_field_of_the_context_is_named() -> None:
    rows = [{"text": "a", "more": "b", "doc": 1}, {"text": "c"}]
    assert around(rows, 0, passage_field="more") == Surroundings(passage=("b",))
    with pytest.raises(DataError, match=r"teacher_context.passage_field=more: row 1 of train has no such field"):
        around(rows, 1, passage_field="more")
    with pytest.raises(
        DataError, match=r"train row 1 has no field 'doc', .*: correct teacher_context.neighbours.within"
    ):
        around(rows, 0, neighbours={"after": 1, "within": "doc"})


def test_questions_of_two_documents_about_equal_passages_stay_apart() -> None:
    rows = [{"context": text, "doc": doc} for text, doc in (("p", 1), ("x", 1), ("y", 2), ("x", 2))]
    wanted = {"before": 2, "after": 2, "within": "doc"}
    assert around(rows, 1, task=SPANS, neighbours=wanted) == Surroundings(before=(("p",),))
    assert around(rows, 3, task=SPANS, neighbours=wanted) == Surroundings(before=(("y",),))


def test_every_split_has_the_context_of_its_own_file_and_the_task_its_digest(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path))
    wide = task_in_context(task, context(neighbours={"before": 1, "after": 1}), folder=tmp_path)
    assert [around_of(one).before for one in wide.train] == [(), (("tea",),), (("mud",),)]
    assert [around_of(one) for one in wide.dev] == [Surroundings()]
    assert [around_of(one).after for one in wide.test] == [(("fog",),), (("fig",),), ()]
    assert wide.facts == task.facts and [one.text for one in wide.test] == [one.text for one in task.test]
    assert task_in_context(task, None, folder=tmp_path) is task


def test_a_split_that_a_task_lacks_is_still_lacking(tmp_path: Path) -> None:
    path = write_task(tmp_path, data={"train": {"path": "train.jsonl"}, "test": {"path": "test.jsonl"}})
    wide = task_in_context(load_task(path), context(neighbours={"before": 1}), folder=tmp_path)
    assert wide.dev == () and len(wide.test) == 3


def test_neighbours_need_not_be_examples_themselves(tmp_path: Path) -> None:
    rows = [{"text": "one", "mood": "unknown"}, {"text": "two", "mood": "good"}]
    path = write_task(tmp_path, rows={"train": rows, "dev": rows, "test": rows})
    wide = task_in_context(load_task(path), context(neighbours={"before": 1}), folder=tmp_path)
    assert [(one.text, around_of(one).before) for one in wide.train] == [("two", (("one",),))]


def test_worked_examples_of_a_context_are_those_of_a_task(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path))
    wide = task_in_context(task, context(examples={"count": 2, "seed": 3}), folder=tmp_path)
    same = load_task(write_task(tmp_path, few_shot=2, few_shot_seed=3))
    assert [wide.shots.before(one) for one in wide.test] == [same.shots.before(one) for one in same.test]
    assert len(wide.shots.before(wide.test[0])) == 2 and task.shots.before(task.test[0]) == ()
    assert wide.train == task.train and not shows_text(wide.context)


@pytest.mark.parametrize(
    "settings, count, error, said",
    [
        ({"few_shot": 1}, 2, ConfigError, r"examples.count=2, and task moods has few_shot=1: remove one"),
        ({"answer": None}, 2, ConfigError, r"examples.count=2 needs to know how a row of task moods is answered"),
        ({}, 9, DataError, r"teacher_context.examples.count=9: .*data.train has 3 rows that differ"),
    ],
)
def test_examples_that_cannot_be_worked_are_refused(
    settings: dict[str, Any], count: int, error: type[Exception], said: str, tmp_path: Path
) -> None:
    task = load_task(write_task(tmp_path, **settings))
    with pytest.raises(error, match=said):
        task_in_context(task, context(examples={"count": count}), folder=tmp_path)


def test_rows_of_another_file_have_its_neighbours(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path))
    rows = [*enumerate(texts("a", "b")), (2, "invalid JSON")]
    assert [one for _, one in rows_in_context(rows, task=task, name="transfer.0")] == [None] * 3
    wide = task_in_context(task, context(neighbours={"before": 1}), folder=tmp_path)
    found = list(rows_in_context(iter(rows), task=wide, name="transfer.0"))
    assert [row for row, _ in found] == [row for _, row in rows]
    assert [one for _, one in found] == [Surroundings(), Surroundings(before=(("a",),)), None]


def test_pairs_leave_no_place_for_a_context() -> None:
    pairs = task_of("classification", labels=["good", "bad"], fields={"label": "label", "second": "other"})
    wanted = context(passage_field="more")
    with pytest.raises(ConfigError, match=r"task t gives it pairs \(fields.second=other\): set teacher.answers"):
        require_room_for_context(pairs, wanted, answers="head")
    require_room_for_context(pairs, wanted, answers="labels")
    require_room_for_context(pairs, None, answers="head")
    require_room_for_context(CLASSES, wanted, answers="head")


def test_a_corpus_in_documents_has_neighbours_within_them(tmp_path: Path) -> None:
    text = "".join(f"-DOCSTART- O\n\n{doc}1 O\n\n{doc}2 O\n\n" for doc in "ab")
    names = ("train", "dev", "test")
    for split in names:
        (tmp_path / f"{split}.conll").write_text(text)
    task = {
        "name": "t",
        "kind": "tagging",
        "data": {split: {"path": f"{split}.conll"} for split in names},
        "fields": {"tokens": "tokens", "tags": "tags"},
        "labels": ["LOC"],
        "template": "{{ tokens }}",
    }
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    wanted = context(neighbours={"before": 2, "within": "document"})
    wide = task_in_context(load_task(tmp_path / "task.yaml"), wanted, folder=tmp_path)
    assert [around_of(one).before for one in wide.test] == [(), (("a1",),), (), (("b1",),)]
