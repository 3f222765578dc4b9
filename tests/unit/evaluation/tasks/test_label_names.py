"""Which label a text names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_builders import task_of

from configs import ConfigError
from evaluation.tasks.label_names import LabelNames


def names(labels: Any) -> LabelNames:
    return LabelNames.of(task_of("classification", labels=labels))


TICKETS = names(["billing", "fault", "praise"])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("billing", "billing"),
        ("It is about BILLING.", "billing"),
        ("**Fault**", "fault"),
        ("_fault_", "fault"),
        ("ｆａｕｌｔ", "fault"),
        ("faulty", None),
        ("default", None),
        ("not praise", "praise"),
        ("billing, though it could be a fault", "billing"),
        ("Billing, fault or praise: praise", "praise"),
        ("billing / fault / praise? Fault!", "fault"),
        ("Of (praise, fault, and billing) I choose fault", "fault"),
        ("billing, fault or praise", None),
        ("billing, fault", "billing"),
        ("billing, billing, fault, praise", "billing"),
        ("", None),
        ("I do not know", None),
    ],
)
def test_the_first_label_that_is_named(text: str, label: str | None) -> None:
    assert TICKETS.first_in(text) == label


def test_the_longer_name_wins_at_one_place() -> None:
    cards = names(["card", "card_arrival", "card arrival late"])
    assert cards.first_in("card arrival") == "card_arrival"
    assert cards.first_in("a card-arrival late.") == "card arrival late"
    assert cards.first_in("card arrivals") == "card"


def test_a_label_goes_by_its_verbaliser_and_by_itself() -> None:
    mood = names({"1": "positive", "0": "negative"})
    assert mood.first_in("Negative, I fear") == "0"
    assert mood.first_in("1") == "1"
    assert mood.first_in("positive or negative") is None
    assert mood.first_in("positive, not negative") == "1"


def test_scripts_without_spaces_have_no_whole_words() -> None:
    mood = names({"p": "正面", "n": "负面"})
    assert mood.first_in("我认为是负面的。") == "n"


def test_a_label_may_be_a_sign() -> None:
    assert names(["+", "-"]).first_in("so: -") == "-"


def test_there_may_be_one_label_alone() -> None:
    assert names(["spam"]).first_in("spam, spam") == "spam"


@pytest.mark.parametrize("labels", [["Yes", "yes"], ["card_arrival", "card arrival"], {"a": "b", "b": "c"}])
def test_labels_that_cannot_be_told_apart_are_refused(labels: Any) -> None:
    with pytest.raises(ConfigError, match=r"task t: labels '.*' and '.*' are both read from '.*': give each"):
        names(labels)


@given(st.sampled_from(["billing", "fault", "praise"]), st.text("xyz .,:-\n", max_size=30))
def test_what_stands_around_a_label_does_not_matter(label: str, around: str) -> None:
    assert TICKETS.first_in(f"{around} {label} {around}") == label


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
@pytest.mark.parametrize("unit", ["a", "card ", "card_", "l1 ", " ", "billing, fault or ", "ﷺ"])
def test_a_million_characters_are_read_in_no_time(unit: str) -> None:
    many = names([f"l{number}" for number in range(100)] + ["card now", "billing", "fault"])
    many.first_in(unit * (10**6 // len(unit)))


def test_all_labels_that_a_text_names() -> None:
    names = LabelNames.of(task_of("classification", labels={"good": "sun", "bad": "rain", "odd": "fog"}))
    assert names.all_in("Sun, or rainy? Odd!") == {"good", "odd"}
