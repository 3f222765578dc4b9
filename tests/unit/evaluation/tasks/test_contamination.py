"""Copies of train rows among the test rows: none missed, none guessed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.tasks.contamination import Copy, duplicates, grams_of

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "東", "京"]), max_size=9).map(" ".join)


def numbered(texts: list[str]) -> dict[int, str]:
    return {10 * place: text for place, text in enumerate(texts)}


def test_copies_whatever_case_width_and_spaces() -> None:
    found = duplicates(
        {0: "Where is  my CARD?", 1: "Ｗhere is my card?", 2: "Where is my card", 3: "", 4: "something else"},
        {7: "where is my card?", 8: "where is my card?", 9: ""},
        threshold=0.8,
    )
    assert found.exact == (Copy(0, 7, 1.0), Copy(1, 7, 1.0))
    assert found.near == (Copy(2, 7, 1.0),)


def test_near_copies_by_hand() -> None:
    train = {0: "one two three four five six seven"}  # 5 grams
    found = duplicates(
        {0: "one two three four five six eight", 1: "one two three x four five six"}, train, threshold=0.5
    )
    assert found.near == (Copy(0, 0, 4 / 6),)  # of row 1 only 2 of 8 grams are shared


def test_the_most_similar_row_is_named() -> None:
    train = {0: "a b c d e f x", 1: "a b c d e f g", 2: "a b c d e f g!"}
    assert duplicates({5: "a, b c d e f g"}, train, threshold=0.3).near == (Copy(5, 1, 1.0),)


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    assert grams_of("東京は首都") == {("東", "京", "は"), ("京", "は", "首"), ("は", "首", "都")}
    assert duplicates({0: "東京は日本の首都である"}, {0: "東京は日本の首都です"}, threshold=0.5).near


def test_short_texts_are_one_gram() -> None:
    assert grams_of("two words") == {("two", "words")}
    assert grams_of("?!") == frozenset()
    assert duplicates({0: "yes!"}, {0: "yes", 1: "!!"}, threshold=0.8).near == (Copy(0, 0, 1.0),)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, max_size=8), st.sampled_from([0.1, 0.3, 0.5, 2 / 3, 0.8, 1.0]))
def test_all_that_comparing_every_pair_would_find(test: list[str], train: list[str], threshold: float) -> None:
    found = duplicates(numbered(test), numbered(train), threshold=threshold)
    exact = [row for row, text in numbered(test).items() if text and text in train]
    near = {}
    for row, text in numbered(test).items():
        for other in train:
            one, two = grams_of(text), grams_of(other)
            if row not in exact and one | two and len(one & two) / len(one | two) >= threshold:
                near[row] = max(near.get(row, 0.0), len(one & two) / len(one | two))
    assert [copy.test_row for copy in found.exact] == exact
    assert {copy.test_row: copy.similarity for copy in found.near} == pytest.approx(near)


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
def test_thousands_of_rows_take_seconds() -> None:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(2000)]
    rows = [" ".join(draw.choices(words, k=20)) for _ in range(6000)]
    found = duplicates(dict(enumerate(rows[:3000] + rows[3000:3010])), dict(enumerate(rows[3000:])), threshold=0.8)
    assert len(found.exact) == 10
