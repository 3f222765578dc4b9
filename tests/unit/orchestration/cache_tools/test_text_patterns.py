"""Patterns of users: found in time that grows with the text alone, and refused in one line."""

from __future__ import annotations

import pytest

from orchestration.cache_tools.text_patterns import TextPattern


def test_a_pattern_is_searched_in_time_that_grows_with_the_text_alone() -> None:
    pattern = TextPattern("(a|a)*(a*)*b")
    assert not pattern.found_in("a" * 200_000)
    assert pattern.found_in("a" * 200_000 + "b")


def test_letters_of_every_script_are_letters() -> None:
    assert TextPattern("(?i)straße").found_in("STRAßE 1")
    assert TextPattern(r"x\?y").found_in("x\ud800y"), "half a character is shown as a question mark"


@pytest.mark.parametrize("text", ["(", "(?=name)", r"(a)\1", "[z-a]", "\ud800("])
def test_what_is_not_a_pattern_of_re2_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is not a regular expression of RE2") as refused:
        TextPattern(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", ".*", "x?", "a*b*"])
def test_what_matches_every_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="matches every text: name what is to go"):
        TextPattern(text)


def test_texts_that_kept_no_case_and_no_accents_are_found_too() -> None:
    folded = TextPattern("Zo[ëe]|M.Ller").folded()
    assert all(folded.found_in(text) for text in ("zoe", "ZOË", "müller"))
    assert not folded.found_in("muler")
