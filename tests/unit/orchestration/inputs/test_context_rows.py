"""Neighbours are nearest rows of one file; worked examples are drawn once, and no row sees itself among them."""

from __future__ import annotations

from typing import Any

import pytest

from configs import DataError
from configs.teacher_context import Neighbours, WorkedExamples
from orchestration.inputs.context_rows import Around, Nearby, Neighbourhood, Said, draw_examples, neighbours_of

DOCUMENTS = {number: {"text": f"t{number}", "of": name} for number, name in enumerate("aabaab")}


def near(rows: dict[int, dict[str, Any]], **settings: Any) -> Neighbourhood:
    return neighbours_of(rows.items(), Neighbours(**settings), split="train")


def test_neighbours_stand_in_the_order_of_the_file_and_end_with_it() -> None:
    found = near(DOCUMENTS, before=2, after=1)
    assert found[0] == Around((), (1,))
    assert found[1] == Around((0,), (2,))
    assert found[3] == Around((1, 2), (4,))
    assert found[5] == Around((3, 4), ())
    assert list(near(DOCUMENTS, after=9)[0].after) == [1, 2, 3, 4, 5]


def test_rows_that_cannot_be_read_are_nobodys_neighbours() -> None:
    left = {number: row for number, row in DOCUMENTS.items() if number != 2}
    assert near(left, before=1, after=1)[3] == Around((1,), (4,))


def test_within_a_document_others_are_passed_over() -> None:
    found = near(DOCUMENTS, before=2, after=1, within="of")
    assert found[3] == Around((0, 1), (4,))
    assert found[2] == Around((), (5,))
    assert found[5] == Around((2,), ())


def test_a_row_of_no_document_stands_alone_and_values_may_be_of_any_kind() -> None:
    rows = {0: {"of": None}, 1: {"of": [1, {"x": 2}]}, 2: {"of": None}, 3: {"of": [1, {"x": 2}]}, 4: {"of": "1"}}
    found = near(rows, before=1, after=1, within="of")
    assert found == {0: Around(), 1: Around((), (3,)), 2: Around(), 3: Around((1,), ()), 4: Around()}


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(
        DataError, match=r"data\.train row 0 has no field 'doc', only 'text', 'of': correct teacher_con"
    ):
        near(DOCUMENTS, before=1, within="doc")


def test_what_neighbours_say_is_found_by_their_numbers() -> None:
    left = {number: row for number, row in DOCUMENTS.items() if number != 2}
    said = Nearby(near(left, before=2, after=1), [str(row["text"]).encode() for row in left.values()])
    assert said.around(3) == Said(("t0", "t1"), ("t4",))
    assert said.around(2) == Said() == Nearby().around(3)


def test_examples_are_the_same_for_all_rows_but_one_that_is_shown() -> None:
    contents = {number: f"question {number}" for number in range(2, 40)}
    drawn = draw_examples(contents, WorkedExamples(count=3, seed=5))
    usual = drawn.shown_to("a question of the test split")
    assert len(usual) == len(set(usual)) == 3
    assert drawn.spare not in usual
    for number, content in contents.items():
        shown = drawn.shown_to(content)
        assert number not in shown
        assert shown == tuple(drawn.spare if each == number else each for each in usual)


def test_another_seed_draws_others_and_the_same_seed_the_same() -> None:
    contents = {number: number for number in range(100)}
    first, again, other = (draw_examples(contents, WorkedExamples(count=4, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert list(first.shown.values()) == [66, 75, 12, 55]


def test_a_copy_of_an_example_does_not_see_it_either() -> None:
    contents = {0: "same", 1: "same", 2: "same", 3: "other", 4: "third"}
    for seed in range(10):
        drawn = draw_examples(contents, WorkedExamples(count=2, seed=seed))
        assert len({contents[row] for row in (*drawn.shown.values(), drawn.spare)}) == 3
        assert "same" not in {contents[row] for row in drawn.shown_to("same")}


def test_too_few_rows_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"examples\.count=2 needs 3 different rows .*, and there are 2: lower count"):
        draw_examples({0: "same", 1: "same", 2: "other"}, WorkedExamples(count=2))
