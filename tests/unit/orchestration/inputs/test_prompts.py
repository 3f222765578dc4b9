"""Sets of prompts: what of them is whose, and what is written of rows that were set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cache import rows
from orchestration.inputs.prompts import (
    DIGEST,
    Prompt,
    PromptIds,
    PromptSet,
    PromptTable,
    Rejected,
    preview,
    tokens_digest,
    why_empty,
)

ROWS = (
    Prompt(0, "zero", (1, 2), wide_ids=(9, 1, 2), teacher="first"),
    Prompt(1, "one", (3,), (4, 5), teacher="second"),
    Prompt(2, "two", (6,)),
)
SET = PromptSet({"train": ROWS, "test": ROWS[2:]}, (Rejected("train", 3, "too long", "thr\u202ee"),))


@pytest.mark.parametrize("held", [1, 40, 10**6])
def test_a_table_gives_the_prompts_that_were_put_in(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HELD_BYTES", held)
    odd = (Prompt(2**40, "hälf \ud800", (2**31 - 1,), (), teacher="first"), Prompt(5, "", ()))
    prompts = (*ROWS, *odd)
    table = PromptTable(prompts)
    assert table == prompts and [table[at] for at in range(len(prompts))] == list(prompts)
    assert table.wide and not PromptTable(ROWS[1:]).wide and not PromptTable()


def test_what_students_read_of_each_is_made_when_it_is_looked_at() -> None:
    read = PromptIds(ROWS)
    assert read == ((1, 2), (3,), (6,)) and read[1] == (3,) and len(read) == 3


def test_equal_tokens_alone_have_one_digest() -> None:
    assert len({tokens_digest(ids) for ids in ((1, 2), (2, 1), (1,), (), (1, 2))}) == 4
    assert len(tokens_digest(())) == DIGEST.itemsize


def test_the_teacher_is_asked_the_wide_prompt_and_a_student_the_narrow_one() -> None:
    assert [row.asked_ids for row in ROWS] == [(9, 1, 2), (3,), (6,)]
    narrow = SET.as_students_see()
    assert [row.asked_ids for row in narrow.splits["train"]] == [(1, 2), (3,), (6,)]
    assert SET.wide and not narrow.wide


def test_rows_of_a_teacher_are_its_own_and_those_of_nobody() -> None:
    own = SET.of_teacher("second").splits
    assert [row.row for row in own["train"]] == [1, 2] and [row.row for row in own["test"]] == [2]


def test_what_was_set_aside_is_written_a_line_a_row(tmp_path: Path) -> None:
    SET.write_rejected(tmp_path / "rejected.jsonl")
    text = (tmp_path / "rejected.jsonl").read_text()
    assert text.isascii() and json.loads(text)["reason"] == "too long" and text.count("\n") == 1


def test_why_a_split_is_empty() -> None:
    assert why_empty("train", SET.rejected) == "all 1 were set aside, the first because: too long"
    assert why_empty("dev", SET.rejected) == "the file has no rows"


def test_the_beginning_of_a_row_is_shown() -> None:
    assert preview("not JSON") == "" and preview({"prompt": "x" * 500}).startswith('{"prompt": "xxx')
    assert len(preview({"prompt": "x" * 500})) == 300
