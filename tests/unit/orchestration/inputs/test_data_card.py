"""The card of a run's data: every count is of the rows as they are used, and no row's text stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.data import DataConfig
from orchestration.inputs.data_card import data_card, writing_system
from orchestration.inputs.prompts import Prompt, PromptSet, Rejected

DATA = DataConfig.model_validate(
    {
        "train": {"path": "a/b/questions_1.jsonl", "limit": 9},
        "dev": {"hub": "someone/data", "revision": "abc"},
        "test": {"path": "test.jsonl"},
    }
)


def prompt(row: int, text: str, tokens: int, gold: int | None = None) -> Prompt:
    return Prompt(row, text, tuple(range(tokens)), None if gold is None else tuple(range(gold)))


def card(tmp_path: Path) -> str:
    train = (prompt(0, "Who?", 10, 3), prompt(1, "Who?", 20), prompt(2, "Кто это?", 30, 5))
    aside = (
        Rejected("train", 3, "it has 812 tokens, more than 512", "secret words"),
        Rejected("train", 4, "it has 1,900 tokens, more than 512", "secret words"),
        Rejected("dev", 0, "it is empty", ""),
    )
    prompts = PromptSet({"train": train, "dev": (prompt(0, "1 + 1", 4),)}, aside, {"train": (prompt(0, "", 1),)})
    return data_card("ours", prompts, data=DATA, said=("data.train: 5 rows looked at",)).replace("\\", "")


def test_rows_are_counted_by_what_they_are(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert text.startswith("# Data of ours\n")
    assert "- Source: questions_1.jsonl, limit 9" in text and "- Source: hub someone/data, revision abc" in text
    assert "- Rows: 3, of which 1 ask what another one asks" in text
    assert "- Tokens of a prompt: median 20, 5 to 95 %: 11 to 29, most 30" in text
    assert "- Tokens of a gold answer: median 4, 5 to 95 %: 3 to 5, most 5 (2 rows have one)" in text
    assert "- Writing systems, by most letters of a row: latin 2, cyrillic 1" in text
    assert "- Writing systems, by most letters of a row: none 1" in text
    assert "- Windows: 1 train" in text and "- data.train: 5 rows looked at" in text


def test_rows_are_set_aside_by_reasons_and_their_text_is_not_told(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert (
        "- Set aside: 2 because it has N tokens, more than N" in text and "- Set aside: 1 because it is empty" in text
    )
    assert "secret" not in text and "a/b" not in text


@pytest.mark.parametrize(
    ("text", "system"),
    [("plain", "latin"), ("日本の ab", "cjk"), ("12 + 3", "none"), ("", "none"), ("Привет, world", "cyrillic")],
)
def test_the_writing_system_is_that_of_most_letters(text: str, system: str) -> None:
    assert writing_system(text) == system
