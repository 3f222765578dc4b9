"""The words of a text, in any script."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer

from evaluation.words import Words, script_of, with_spaces, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Привет, мир!", ["привет", "мир"]),
        ("И\u0306 Й", ["й", "й"]),  # in two code points and in one
        ("مرحبا ٣٤", ["مرحبا", "٣٤"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs belong to their letters
        ("한국어 입니다", ["한국어", "입니다"]),
        ("\u1112\u1161\u11ab", ["한"]),  # a syllable written as its parts
        ("ΤΟ ΦΩΣ", ["το", "φως"]),
        ("今日はコーヒー１２杯", [*"今日はコーヒー", "12", "杯"]),
        ("ｱｲｽ〇々", [*"アイス〇々"]),
        ("ភាសាខ្មែរ។", ["ភា", "សា", "ខ្", "មែ", "រ"]),
        ("ภาษา ๑๒", [*"ภาษา", "๑๒"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("Ту154м runs 東京", ["ту", "154", "м", "run", "東", "京"]),
        ("naïve", ["na", "ve"]),  # as rouge-score has it
        ("half \ud83d a pair", ["half", "a", "pair"]),
        ("! 😀 -", []),
    ],
)
def test_the_words_of_every_script(text: str, words: list[str]) -> None:
    assert Words().tokenize(text) == words


@given(st.text(alphabet=st.characters(max_codepoint=0x24F, exclude_categories=["Cs"])))
@example("running İstanbul straße runner's caf\u0301e 12th")
def test_latin_text_is_cut_as_rouge_score_cuts_it(text: str) -> None:
    assert Words().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


def test_words_keep_their_endings_where_nothing_is_stemmed() -> None:
    assert words_of("Running Москва 东京 ｱ") == ["running", "москва", "东", "京", "ア"]


def test_characters_of_scripts_without_spaces_are_set_apart() -> None:
    assert with_spaces("a东京b").split() == ["a", "东", "京", "b"]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The cat", "latin"),
        ("", "latin"),
        ("1 2 3", "latin"),
        ("Привет, world!!", "spaced"),
        ("नमस्ते", "spaced"),
        ("東京は OK", "unspaced"),
    ],
)
def test_the_script_of_a_text_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script
