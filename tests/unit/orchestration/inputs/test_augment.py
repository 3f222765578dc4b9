from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ConfigError
from configs.task_data import RuleAugmentation
from orchestration.inputs.augment import LONGEST_NGRAM, Changed, HanoverTagger, Texts, change_by_rules

TEXT = Texts(("text",))

ROWS: list[dict[str, Any]] = [
    {"text": "please move my booking to friday", "label": "move"},
    {"text": "cancel the table for tonight", "label": "cancel"},
    {"text": "what does the room cost", "label": "price"},
]

WORDS = [word for row in ROWS for word in row["text"].split()]


class ByLength:
    """Words of one length are of one part of speech."""

    def of(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(len(word)) for word in words)


def rules(**values: Any) -> RuleAugmentation:
    plain = {"kind": "rules", "mask": 0.0, "same_part": 0.0, "ngram": 0.0, "copies": 50}
    return RuleAugmentation.model_validate(plain | values)


def change(rows: list[dict[str, Any]] = ROWS, texts: Texts = TEXT, **values: Any) -> Changed:
    return change_by_rules(rows, texts=texts, rules=rules(**values), mask="[MASK]", parts=ByLength())


def test_words_are_masked_as_often_as_is_said() -> None:
    changed = change(mask=0.3, copies=400)
    words = [word for row in changed.rows for word in row["text"].split()]
    kept = [row for row in changed.rows if len(row["text"].split()) in (5, 6)]
    assert len(kept) == len(changed.rows)
    assert changed.twice > 0
    assert 0.2 < words.count("[MASK]") / len(words) < 0.5


def test_other_words_are_of_the_same_part_of_speech_and_stand_in_the_rows() -> None:
    changed = change(same_part=0.5)
    for row in changed.rows:
        (source,) = [each["text"].split() for each in ROWS if each["label"] == row["label"]]
        assert [len(word) for word in row["text"].split()] == [len(word) for word in source]
        assert set(row["text"].split()) <= set(WORDS)


def test_a_piece_of_a_text_is_one_to_five_words_of_it() -> None:
    changed = change(ngram=1.0)
    assert {len(row["text"].split()) for row in changed.rows} == set(range(1, LONGEST_NGRAM + 1))
    for row in changed.rows:
        (source,) = [each["text"] for each in ROWS if each["label"] == row["label"]]
        assert row["text"] in source


def test_nothing_comes_twice_and_nothing_is_what_was_there() -> None:
    changed = change(mask=0.1, same_part=0.1, ngram=0.25)
    texts = [row["text"] for row in changed.rows]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {row["text"] for row in ROWS}
    assert len(texts) + changed.twice + changed.empty == 50 * len(ROWS)


def test_without_any_change_everything_came_twice() -> None:
    assert change() == change_by_rules(ROWS, texts=TEXT, rules=rules(), mask=None, parts=None)
    assert (change().rows, change().twice) == ((), 150)


def test_masks_alone_are_dropped() -> None:
    changed = change([{"text": "hello"}], mask=1.0, copies=7)
    assert (changed.rows, changed.empty) == ((), 7)


@given(st.permutations(range(len(ROWS))), st.integers(0, 9))
def test_what_comes_of_a_row_does_not_depend_on_the_order(order: list[int], seed: int) -> None:
    settings = {"mask": 0.2, "same_part": 0.2, "ngram": 0.3, "copies": 5, "seed": seed}
    once, again = change(**settings), change([ROWS[at] for at in order], **settings)
    assert {row["text"] for row in once.rows} == {row["text"] for row in again.rows}
    assert change(**settings) == once


def test_another_seed_makes_other_texts() -> None:
    assert change(mask=0.3).rows != change(mask=0.3, seed=1).rows


def test_tags_go_with_their_words() -> None:
    row = {"tokens": ["ada", "was", "in", "rome", "today"], "tags": ["B-PER", "O", "O", "B-LOC", "O"]}
    changed = change([row], Texts(("tokens",), tags="tags"), ngram=1.0)
    pairs = dict(zip(row["tokens"], row["tags"], strict=True))
    for each in changed.rows:
        assert [pairs[word] for word in each["tokens"]] == each["tags"]


def test_both_texts_of_a_pair_are_changed_apart() -> None:
    rows = [{"premise": "it rains in rome today", "hypothesis": "rome is wet", "label": "yes"}]
    changed = change(rows, Texts(("premise", "hypothesis")), ngram=1.0)
    lengths = {(len(row["premise"].split()), len(row["hypothesis"].split())) for row in changed.rows}
    assert len(lengths) > 3
    assert all(row["label"] == "yes" for row in changed.rows)


def test_a_tokenizer_without_a_mask_cannot_mask() -> None:
    with pytest.raises(ConfigError, match=r"mask=0\.1 but the teacher's tokenizer has no mask token"):
        change_by_rules(ROWS, texts=TEXT, rules=rules(mask=0.1), mask=None, parts=None)


def test_a_tagger_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "HanTa", None)
    with pytest.raises(ConfigError, match=r"install \"stillroom\[augment\]\", or set same_part: 0"):
        HanoverTagger()


def test_parts_of_speech_by_hanta() -> None:
    pytest.importorskip("HanTa")
    tagger = HanoverTagger()
    nouns = tagger.of(("the", "booking", "and", "the", "table"))
    assert nouns[1] == nouns[4] != nouns[0] == nouns[3]
    assert tagger.of(()) == ()


def test_what_every_copy_became_is_known() -> None:
    rows = [*ROWS, {"text": "hello", "label": "greet"}, ROWS[0]]
    changed = change(rows, mask=0.3, ngram=0.2, copies=12)
    assert changed.twice and changed.empty
    assert [len(copies) for copies in changed.copies] == [12] * len(rows)
    places = [*rows, *changed.rows]
    for row, copies in zip(rows, changed.copies, strict=True):
        for copy, place in enumerate(copies):
            alone = change([row], mask=0.3, ngram=0.2, copies=12)
            words = alone.copies[0][copy]
            expected = None if words is None else [row, *alone.rows][words]["text"]
            assert (None if place is None else places[place]["text"]) == expected
    # Of texts that are the same the first speaks for both.
    assert changed.copies[0] == changed.copies[4]
    assert sum(copies.count(None) for copies in changed.copies) == changed.empty
