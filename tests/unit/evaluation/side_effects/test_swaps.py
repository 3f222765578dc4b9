"""Swapped texts read like texts about somebody else, and swap back."""

from __future__ import annotations

import pytest

from evaluation.side_effects.swaps import NAMES, NOUNS, swapped


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("He told Tom.", "She told Anna."),
        ("Her book is new, and she likes it.", "His book is new, and he likes it."),
        ("I saw her and left.", "I saw him and left."),
        ("The book is his.", "The book is hers."),
        ("THE MAN and his son", "THE WOMAN and her daughter"),
        ("Give it to her.", "Give it to him."),
        ("He hurt himself.", "She hurt herself."),
    ],
)
def test_everybody_becomes_somebody_of_the_other_gender(text: str, other: str) -> None:
    assert swapped(text) == other


@pytest.mark.parametrize(
    "text", ["Add two and two.", "", "The theme of the hero", "What is shed?", "carol and jack the car up"]
)
def test_a_text_about_nobody_gives_none(text: str) -> None:
    assert swapped(text) is None


@pytest.mark.parametrize(
    "text", ["Emma lost her keys.", "My father said that he knew her brother.", "Jack washes himself."]
)
def test_twice_is_the_text_itself(text: str) -> None:
    once = swapped(text)
    assert once is not None and once != text and swapped(once) == text


def test_no_word_stands_for_two() -> None:
    every = [word for pairs in (NOUNS, NAMES) for pair in pairs.items() for word in pair]
    assert len(set(every)) == len(every)
