"""Rows of every kind of task are redacted so that labels, tags and answers stay beside what they are about."""

from __future__ import annotations

import re
from typing import Any

import pytest

from configs.screening import PrivacyConfig
from configs.task import TaskConfig
from evaluation.tasks.examples import read_examples
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs import screen
from orchestration.inputs.placeholders import Placeholders
from orchestration.inputs.private_spans import PrivateSpan
from orchestration.inputs.screen import Screen
from orchestration.inputs.screened_row import CUT_OFF, RowLooks, every_text, form_of_task

SPLITS = {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")}


class NumberFinder:
    """Finds numbers of several groups."""

    def __init__(self, config: PrivacyConfig) -> None:
        del config

    def find(self, text: str) -> list[PrivateSpan]:
        return [PrivateSpan(each.start(), each.end(), "PHONE") for each in re.finditer(r"\d{3}(?: \d{3})*", text)]


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "SpanFinder", NumberFinder)


def looks(action: str = "redact") -> RowLooks:
    privacy = PrivacyConfig.model_validate({"prompts": action})
    return RowLooks(Screen(privacy, None, answers=False), Placeholders())


def task(kind: str, **values: Any) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "kind": kind, "data": SPLITS, "template": "{{ text }}", **values})


CLASSES = task("classification", fields={"label": "mood.name"}, labels=["555", "bad"])
TAGS = task("tagging", fields={"tokens": "tokens", "tags": "tags"}, labels=["NUM", "PER"])
PASSAGES = task(
    "extractive_qa", fields={"context": "context", "answers": "answers"}, template="{{ question }} {{ context }}"
)


def test_a_label_stays_whatever_it_looks_like() -> None:
    row = {"text": "at 555", "mood": {"name": "555", "note": "555"}, "n": 555}
    assert form_of_task(CLASSES)(row, looks()) == {
        "text": "at <PHONE_1>",
        "mood": {"name": "555", "note": "<PHONE_1>"},
        "n": 555,
    }


@pytest.mark.parametrize("joined", [False, True])
def test_tags_stay_beside_their_words(joined: bool) -> None:
    tokens, tags = ["Ann", "555", "123", "left"], ["B-PER", "B-NUM", "I-NUM", "O"]
    row = {"tokens": " ".join(tokens) if joined else tokens, "tags": tags, "text": "Ann 555 123 left"}
    found = looks()
    clean = form_of_task(TAGS)(row, found)
    assert clean == {
        "tokens": ["Ann", "<PHONE_1>", "<PHONE_1>", "left"],
        "tags": tags,
        "text": "Ann <PHONE_1> left",
    }
    (example,) = read_examples(TAGS, [(0, clean)]).usable
    assert example.gold == ("0 1 PER", "1 3 NUM")
    assert [len(look.spans) for look in found.looks] == [1, 1]


@pytest.mark.parametrize(
    ("context", "answers", "found"),
    [
        ("Ann, 555 123, left", ["555 123"], ["<PHONE_1>"]),
        ("Ann, 555 123, left", ["Ann, 555 123"], ["Ann, <PHONE_1>"]),
        ("777 and 555 left", ["left"], ["left"]),
        # One that stands nowhere is redacted as it is.
        ("555 Ann left", ["123", "Ann", "Bob"], ["<PHONE_2>", "Ann", "Bob"]),
        ("Ann, 555 123, left", ["555", "Ann"], ["Ann"]),
        ("Ann left", [], []),
    ],
)
def test_answers_are_what_the_passage_says(context: str, answers: list[str], found: list[str]) -> None:
    row = {"context": context, "answers": answers, "question": "555 123?"}
    clean = form_of_task(PASSAGES)(row, looks())
    assert clean["answers"] == found
    assert all(each in clean["context"] for each in found if each != "<PHONE_2>" and each != "Bob")
    assert "555" not in str(clean)


def test_answers_keep_their_form_without_places_that_are_not_true_any_more() -> None:
    row = {"context": "555 called Ann", "answers": {"text": ["Ann"], "answer_start": [11]}, "question": "whom"}
    assert form_of_task(PASSAGES)(row, looks())["answers"] == {"text": ["Ann"]}
    row = {"context": "555 called Ann", "answers": "Ann", "question": "whom"}
    assert form_of_task(PASSAGES)(row, looks())["answers"] == "Ann"


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("It is 555 123.", "555"),
        ("It is 555 123.", "is 555"),
        # What is learned is the first place of an answer, and that one is cut.
        ("5551 is not 551", "551"),
    ],
)
def test_an_answer_that_a_value_cuts_costs_the_row(context: str, answer: str) -> None:
    row = {"context": context, "answers": [answer], "question": "what"}
    with pytest.raises(UnfitRowError, match=CUT_OFF):
        form_of_task(PASSAGES)(row, looks())


@pytest.mark.parametrize("action", ["count", "drop"])
def test_nothing_is_changed_that_is_only_looked_at(action: str) -> None:
    row = {"context": "It is 555 123.", "answers": {"text": ["555"]}, "question": "what"}
    found = looks(action)
    assert form_of_task(PASSAGES)(row, found) == row
    assert sum(len(look.spans) for look in found.looks) == 1


@pytest.mark.parametrize(
    ("of", "row"),
    [
        (TAGS, {"tokens": 7, "tags": None}),
        (TAGS, {"text": "x"}),
        (PASSAGES, {"context": None, "answers": 3}),
        (PASSAGES, {"context": "Ann", "answers": [1]}),
        (CLASSES, {"text": None}),
    ],
)
def test_a_row_of_another_form_is_left_to_whoever_reads_it(of: TaskConfig, row: dict[str, Any]) -> None:
    assert form_of_task(of)(row, looks()) == row


def test_rows_of_no_task_are_looked_at_as_they_are() -> None:
    assert every_text({"a": ["555", {"b": "x"}]}, looks()) == {"a": ["<PHONE_1>", {"b": "x"}]}
    written = task("generation", fields={"references": "said"})
    assert form_of_task(written)({"said": ["555"]}, looks()) == {"said": ["<PHONE_1>"]}
