from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from configs.visible_text import markdown_text, visible


def test_text_that_everybody_sees_stays_as_it_is() -> None:
    for text in ("plain text", "Grüße, 東京, مرحبا, हिन्दी", "e\u0301", "🙂 [bold]", "👩\u200d🔬", "می\u200cخواهم"):
        assert visible(text) == text


def test_what_nobody_sees_is_shown_as_an_escape() -> None:
    assert visible("\x1b]52;c;evil\x07") == "\\x1b]52;c;evil\\x07"
    assert visible("abc\u202edef") == "abc\\u202edef"
    assert visible("a\u200bb\ufeff") == "a\\u200bb\\ufeff"
    assert visible("\ud800") == "\\ud800"
    assert visible("\U000e0041") == "\\U000e0041"
    assert visible("a\r\nb\tc") == "a\\r\\nb\\tc"
    assert visible("a\nb\tc\r", lines=True) == "a\nb\tc\\r"


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert visible("abcdef", at_most=4) == "abc…"
    assert visible("abcd", at_most=4) == "abcd"


def test_markdown_shows_text_literally() -> None:
    assert markdown_text("[a](http://x) | <b>") == "\\[a\\]\\(http://x\\) \\| \\<b\\>"
    assert markdown_text("# x\n* y") == "\\# x\\\\n\\* y"


@given(st.text())
def test_nothing_hidden_is_ever_left(text: str) -> None:
    assert all(unicodedata.category(char)[0] != "C" or char in "\u200c\u200d" for char in visible(text))


def test_letters_that_are_drawn_as_nothing_are_escaped_too() -> None:
    assert visible("a\u3164\u2800\u115f\U000e0100") == "a\\u3164\\u2800\\u115f\\U000e0100"
    assert visible("❤\ufe0f") == "❤\ufe0f"
