"""Rows that were forgotten are set aside without a word of theirs."""

from __future__ import annotations

import pytest

from cache.erasures import FORGOTTEN, Erasures, asked_name, held_name
from orchestration.inputs.forgotten_rows import without_forgotten
from orchestration.inputs.prompts import Prompt, PromptSet, Rejected
from orchestration.inputs.wide_prompts import Widened

PLAIN = Prompt(0, "", (9,), (8, 7))
ROWS = (Prompt(0, "one", (1, 2)), Prompt(1, "two", (3,), (4,)), Prompt(2, "three", (5,), wide_ids=(6, 5)))
READ = Widened(PromptSet({"train": ROWS}, (), {"train": (PLAIN,)}), ("as before",))


def erased(*names: str) -> Erasures:
    return Erasures(frozenset(names))


@pytest.mark.parametrize(
    ("tokens", "row"), [((1, 2), 0), ((3,), 1), ((3, 4), 1), ((5,), 2), ((6, 5), 2)]
)  # fmt: skip
def test_a_row_goes_with_its_prompt_its_answer_or_what_the_teacher_saw(tokens: tuple[int, ...], row: int) -> None:
    found = without_forgotten(READ, erased(held_name(tokens)))
    assert found.prompts.splits["train"] == tuple(each for each in ROWS if each.row != row)
    assert found.prompts.rejected == (Rejected("train", row, FORGOTTEN, ""),)
    assert found.said[0] == "as before" and found.said[1].startswith("1 rows of the data were forgotten")


def test_windows_of_plain_text_go_too() -> None:
    found = without_forgotten(READ, erased(held_name((9, 8, 7))))
    assert found.prompts.plain == {"train": ()} and found.prompts.rejected[0].split == "plain-train"


def test_where_nothing_is_forgotten_nothing_is_said() -> None:
    assert without_forgotten(READ, erased()) is READ
    # A prompt whose answer held it is of whoever asks.
    assert without_forgotten(READ, erased(held_name((7,)), asked_name((1, 2)))) is READ
