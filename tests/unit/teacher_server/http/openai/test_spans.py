"""Tokens and their text, cut where a stop text begins."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_server.http.openai.spans import Span, cut_at

# Few letters, so that stops are met often; characters of up to four bytes, cut into tokens anywhere.
ALPHABET = "ab\n€😀"
TEXTS = st.text(alphabet=ALPHABET, max_size=12)
STOPS = st.lists(st.text(alphabet=ALPHABET, min_size=1, max_size=3), max_size=3)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A text, and its bytes cut into tokens somewhere; some of them stand for no text."""
    text = draw(TEXTS)
    whole = text.encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    ends = [0, *cuts, len(whole)]
    return text, [whole[begin:end] for begin, end in pairwise(ends)]


@given(tokenised(), STOPS)
def test_text_tokens_and_places_agree_whatever_the_stops(
    given_tokens: tuple[str, list[bytes]], stops: list[str]
) -> None:
    text, pieces = given_tokens
    ids = list(range(100, 100 + len(pieces)))
    span = cut_at(ids, pieces, stops=stops)
    # The text is what stands before the first stop, as whoever has the text alone would find it.
    places = [at for at in map(text.find, stops) if at >= 0]
    expected = text[: min(places)] if places else text
    assert (span.text, span.stopped) == (expected, bool(places))
    # The tokens are a beginning of the answer's, and those and no others whose bytes begin within the text.
    kept = len(span.token_ids)
    assert list(span.token_ids) == ids[:kept] and len(span.parts) == kept
    size = len(expected.encode())
    begins = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    assert kept == (sum(begin < size for begin in begins) if places else len(pieces))
    # Every token begins where it is said to, or within the character that it goes on with.
    for begin, place in zip(begins, span.offsets(start=7), strict=False):
        whole_characters = len(text.encode()[:begin].decode(errors="ignore"))
        assert place == 7 + whole_characters


@given(tokenised())
def test_without_stops_nothing_is_cut(given_tokens: tuple[str, list[bytes]]) -> None:
    text, pieces = given_tokens
    assert cut_at(range(len(pieces)), pieces) == Span(
        tuple(range(len(pieces))), cut_at(range(len(pieces)), pieces).parts
    )
    assert cut_at(range(len(pieces)), pieces).text == text


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "kept"),
    [
        ([b"one", b" two", b" three"], ["two"], "one ", 2),  # within a token
        ([b"one", b" t", b"wo"], [" two"], "one", 1),  # over the border of two
        ([b"one", b" two"], ["o"], "", 0),  # at the very beginning
        ([b"one", b"", b"two"], ["t"], "one", 1),  # a token without text stands where the stop begins
        ([b"one", b"", b" two"], ["t"], "one ", 3),
        ([b"a", b"bc", b"d"], ["cd", "b"], "a", 1),  # the one that begins first
        ([b"\xe2\x82", b"\xac!", b"x"], ["!"], "€", 2),
        ([b"\xe2\x82", b"\xac!", b"x"], ["€"], "", 0),
        ([], ["a"], "", 0),
    ],
)
def test_a_stop_may_begin_anywhere(pieces: list[bytes], stops: list[str], text: str, kept: int) -> None:
    span = cut_at(range(len(pieces)), pieces, stops=stops)
    assert (span.text, len(span.token_ids)) == (text, kept)


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    span = cut_at([1, 2, 3], [b"a\xe2", b"\x82", b"\xacb"])
    assert span.parts == ("a", "", "€b") and span.offsets() == [0, 1, 1]


def test_what_is_no_character_is_told_as_such_at_the_end() -> None:
    assert cut_at([1, 2], [b"a", b"\xe2\x82"]).parts == ("a", "\ufffd")
    assert cut_at([1, 2], [b"\xe2", b"a"]).text == b"\xe2a".decode(errors="replace")
