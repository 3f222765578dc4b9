"""Rows about somebody of the other gender keep labels and tags, and rows about nobody give none."""

from __future__ import annotations

from orchestration.inputs.augment import Texts
from orchestration.inputs.augment_swaps import change_by_swaps


def test_texts_are_about_somebody_else_and_keep_their_label() -> None:
    rows = [{"text": "Emma lost her  keys", "label": "bad"}, {"text": "it rains", "label": "bad"}]
    found = change_by_swaps(rows, texts=Texts(("text",)))
    assert found.rows == ({"text": "James lost his keys", "label": "bad"},)
    assert (found.twice, found.empty) == (1, 0) and found.copies == ((2,), (1,))


def test_a_text_whose_counterpart_is_there_already_is_a_copy_of_it() -> None:
    rows = [{"text": "he left"}, {"text": "she left"}]
    found = change_by_swaps(rows, texts=Texts(("text",)))
    assert found.rows == () and found.copies == ((1,), (0,))


def test_tags_stay_beside_their_words() -> None:
    rows = [
        {"tokens": ["Emma", "saw", "him"], "tags": ["B-PER", "O", "O"]},
        {"tokens": ["he", "a b"], "tags": ["O", "O"]},
    ]
    found = change_by_swaps(rows, texts=Texts(("tokens",), tags="tags"))
    assert found.rows == ({"tokens": ["James", "saw", "her"], "tags": ["B-PER", "O", "O"]},)
