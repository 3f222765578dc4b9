from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.task_data import Continuation, WordReplacement
from orchestration.inputs.augment import ChangedRow, Texts, gather, words_of
from orchestration.inputs.augment_choices import Beginning, Gap, is_of_a_word, replace_words, write_on

TEXT = Texts(("text",))

ROWS: list[dict[str, Any]] = [
    {"text": "please move my booking to friday", "label": "move"},
    {"text": "cancel the table for tonight", "label": "cancel"},
    {"text": "what does the room cost", "label": "price"},
]


def words(rows: Sequence[dict[str, Any]] = ROWS, texts: Texts = TEXT) -> list[tuple[tuple[str, ...], ...]]:
    return [words_of(row, texts) for row in rows]


class Numbered:
    """Candidates that say where they belong: `friday0`, `friday1`, ..."""

    def __init__(self) -> None:
        self.asked: list[Gap] = []

    def likeliest(self, gaps: Sequence[Gap], count: int) -> list[tuple[str, ...]]:
        self.asked += gaps
        return [tuple(f"{gap.words[gap.at]}{at}" for at in range(count)) for gap in gaps]


class Few:
    """Knows no word for most gaps."""

    def likeliest(self, gaps: Sequence[Gap], count: int) -> list[tuple[str, ...]]:
        return [("chair",) if gap.words[gap.at] == "table" else () for gap in gaps]


class Counting:
    """Writes its seed, so that every text is told from others."""

    def __init__(self) -> None:
        self.asked: list[Beginning] = []

    def continued(self, beginnings: Sequence[Beginning], *, max_new_tokens: int, temperature: float) -> list[str]:
        self.asked += beginnings
        return [f"s until {beginning.seed % 1000}  or {max_new_tokens}" for beginning in beginnings]


class Silent:
    """Writes on what begins with one word, and nothing else."""

    def continued(self, beginnings: Sequence[Beginning], *, max_new_tokens: int, temperature: float) -> list[str]:
        return [" and so on" if beginning.text == "rome is" else " " for beginning in beginnings]


def masked(**values: Any) -> WordReplacement:
    return WordReplacement.model_validate({"kind": "masked_lm", "model": {"hub": "a/b"}} | values)


def writing(**values: Any) -> Continuation:
    return Continuation.model_validate({"kind": "continuation", "model": {"hub": "a/b"}} | values)


def replaced(rows: Sequence[dict[str, Any]] = ROWS, texts: Texts = TEXT, **values: Any) -> tuple[ChangedRow, ...]:
    return replace_words(words(rows, texts), settings=masked(**values), candidates=Numbered())


def test_words_are_replaced_as_often_as_is_said_and_by_all_candidates_alike() -> None:
    made = replaced(replace=0.4, candidates=5, copies=500)
    pairs = [
        (old, new)
        for row in made
        for old, new in zip(words()[row.place][0], row.texts[0].words, strict=True)
    ]  # fmt: skip
    chosen = Counter(new.removeprefix(old) for old, new in pairs if new != old)
    assert 0.37 < chosen.total() / len(pairs) < 0.43
    assert set(chosen) == set("01234")
    assert max(chosen.values()) < 1.2 * min(chosen.values())


def test_the_place_of_a_candidate_says_nothing() -> None:
    class Backwards(Numbered):
        def likeliest(self, gaps: Sequence[Gap], count: int) -> list[tuple[str, ...]]:
            return [found[::-1] for found in super().likeliest(gaps, count)]

    settings = masked(candidates=7)
    once = replace_words(words(), settings=settings, candidates=Numbered())
    assert once == replace_words(words(), settings=settings, candidates=Backwards())


def test_a_gap_is_asked_for_once_in_the_text_as_it_was() -> None:
    numbered = Numbered()
    replace_words([*words(), *words()], settings=masked(copies=30), candidates=numbered)
    assert len(numbered.asked) == len(set(numbered.asked)) == sum(len(row[0]) for row in words())
    assert {gap.words for gap in numbered.asked} == {row[0] for row in words()}


def test_what_is_not_replaced_is_not_asked_for() -> None:
    numbered = Numbered()
    made = replace_words(words(), settings=masked(replace=0.2, copies=1), candidates=numbered)
    changed = {
        (words()[row.place][0], at)
        for row in made
        for at, word in enumerate(row.texts[0].words)
        if word != words()[row.place][0][at]
    }
    assert {(gap.words, gap.at) for gap in numbered.asked} == changed


def test_punctuation_stays_and_alone_is_never_replaced() -> None:
    (row,) = replaced([{"text": 'so, "what?" - (it\'s) हिन्दी !'}], replace=1.0, candidates=1, copies=1)
    gap = Gap(("so,", '"what?"', "-"), 1)
    assert (gap.before, gap.after, gap.filled("who")) == ('so, "', '?" -', '"who?"')
    assert gap.before + "what" + gap.after == " ".join(gap.words)
    assert row.texts[0].words == ("so,0,", '""what?"0?"', "-", "((it's)0)", "हिन्दी0", "!")


@pytest.mark.parametrize(("character", "belongs"), [("a", True), ("ी", True), ("7", True), ("-", False), ("$", False)])
def test_letters_digits_and_marks_belong_to_words(character: str, belongs: bool) -> None:
    assert is_of_a_word(character) is belongs


def test_a_word_without_candidates_stays() -> None:
    rows = replace_words(words(), settings=masked(replace=1.0, copies=1), candidates=Few())
    assert [" ".join(row.texts[0].words) for row in rows] == [
        "please move my booking to friday",
        "cancel the chair for tonight",
        "what does the room cost",
    ]


def test_tags_stay_with_their_words() -> None:
    tagged = {"tokens": ["ada", "was", "in", "rome"], "tags": ["B-PER", "O", "O", "B-LOC"], "id": 7}
    texts = Texts(("tokens",), tags="tags")
    changed = gather([tagged], replaced([tagged], texts, copies=5), texts=texts)
    assert len(changed.rows) + changed.twice == 5
    for row in changed.rows:
        assert row["tags"] == tagged["tags"] and row["id"] == 7
        assert len(row["tokens"]) == 4 and isinstance(row["tokens"], list)


def test_texts_of_a_pair_are_changed_apart() -> None:
    pair = {"premise": "it rains in rome", "hypothesis": "rome is wet"}
    texts = Texts(("premise", "hypothesis"))
    made = replaced([pair], texts, replace=0.5, copies=200)
    changes = Counter(
        (row.texts[0].words != words([pair], texts)[0][0], row.texts[1].words != words([pair], texts)[0][1])
        for row in made
    )
    assert len(changes) == 4


def test_copies_and_empty_rows_are_counted() -> None:
    rows = [*ROWS[:1], {"text": " "}]
    changed = gather(rows, replaced(rows, replace=0.1, candidates=1, copies=40), texts=TEXT)
    assert changed.empty == 40
    assert changed.twice > 10 and len(changed.rows) + changed.twice == 40
    assert len({row["text"] for row in changed.rows} | {rows[0]["text"]}) == len(changed.rows) + 1


@given(st.permutations(range(len(ROWS))), st.integers(0, 9))
def test_what_comes_of_a_row_does_not_depend_on_the_order(order: list[int], seed: int) -> None:
    rows = [words()[at] for at in order]
    replacing, continuing = masked(copies=3, seed=seed), writing(copies=3, seed=seed)
    for first, second in (
        (
            replace_words(words(), settings=replacing, candidates=Numbered()),
            replace_words(rows, settings=replacing, candidates=Numbered()),
        ),
        (
            write_on(words(), settings=continuing, writer=Counting()),
            write_on(rows, settings=continuing, writer=Counting()),
        ),
    ):
        assert {(row.place, row.texts) for row in first} == {(order[row.place], row.texts) for row in second}


def test_another_seed_and_another_copy_say_something_else() -> None:
    assert replaced(copies=5) != replaced(copies=5, seed=1)
    counting = Counting()
    for seed in (0, 1):
        write_on(words(), settings=writing(copies=4, seed=seed), writer=counting)
    assert len({beginning.seed for beginning in counting.asked}) == 2 * 4 * len(ROWS)
    pair = words([{"premise": "it rains", "hypothesis": "it rains"}], Texts(("premise", "hypothesis")))
    write_on(pair, settings=writing(), writer=counting)
    assert counting.asked[-1].seed != counting.asked[-2].seed


def test_texts_are_written_on_from_their_first_words() -> None:
    counting = Counting()
    made = write_on(words(), settings=writing(first_words=2, max_new_tokens=9), writer=counting)
    assert [beginning.text for beginning in counting.asked] == ["please move", "cancel the", "what does"]
    for row, beginning in zip(made, counting.asked, strict=True):
        first, second = beginning.text.split()
        assert row.texts[0].words == (first, f"{second}s", "until", str(beginning.seed % 1000), "or", "9")


def test_a_row_of_which_nothing_is_written_on_is_empty() -> None:
    texts = Texts(("premise", "hypothesis"))
    rows = [
        {"premise": "it rains", "hypothesis": "rome is wet"},
        {"premise": "it rains", "hypothesis": ""},
        {"premise": "", "hypothesis": ""},
    ]
    made = write_on(words(rows, texts), settings=writing(first_words=2, copies=2), writer=Silent())
    changed = gather(rows, made, texts=texts)
    assert changed.rows == ({"premise": "it rains", "hypothesis": "rome is and so on"},)
    assert (changed.twice, changed.empty) == (1, 4)
