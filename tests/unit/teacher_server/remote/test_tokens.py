"""What a server says of a token leads to one id or to none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_server.remote.tokens import RemoteTokens

PIECES: list[bytes | None] = [None, None, b"a", b"b", b"ab", b" a", "é".encode(), b"\xc3", b"\xa9", b"b", b"\xff", b"c"]
NAMES = {0: "<bos>", 1: "<eos>"}


def encode(text: str) -> list[int]:
    known = {"a": 2, "b": 3, "é": 6, "c": 11}
    return [known.get(character, 0) for character in text]


TOKENS = RemoteTokens(PIECES, NAMES, encode=encode)


@pytest.mark.parametrize(
    ("token", "raw", "id_"),
    [
        ("a", None, 2),
        (" a", None, 5),
        ("token_id:7", None, 7),
        ("token_id:12", None, None),
        ("<eos>", None, 1),
        # Two tokens of this tokenizer are spelt b.
        ("b", None, None),
        ("zz", None, None),
        ("\ufffd", None, None),
        ("\ufffd", [0xC3], 7),
        ("\ufffd", [0xFF], 10),
        ("\ufffd", [300], None),
        ("bytes:\\xc3", None, 7),
        ("bytes:\\xc3\\xa9", None, 6),
    ],
)
def test_a_name_leads_to_one_id_or_none(token: str, raw: list[int] | None, id_: int | None) -> None:
    assert TOKENS.id_of(token, raw) == id_


def test_a_prompt_is_spelt_with_its_special_tokens() -> None:
    assert TOKENS.text([0, 2, 7, 8, 1]) == "<bos>aé<eos>"
    assert TOKENS.text([2, 7]) is None
    assert TOKENS.holds_special([2, 1]) and not TOKENS.holds_special([2, 3])


def test_an_answer_has_ids_only_where_they_spell_it_again() -> None:
    assert TOKENS.ids("abé") == [2, 3, 6]
    assert TOKENS.ids("a?") is None
    assert TOKENS.ids("") == []
    assert RemoteTokens([b"\xef\xbf\xbd"], {}, encode=lambda _: [0]).ids("\ufffd") is None


def test_the_blank_before_a_text_belongs_to_no_text() -> None:
    tokens = RemoteTokens([None, b" a", b"b"], {0: "<s>"}, encode=lambda _: [1, 2], blank_first=True)
    assert tokens.ids("ab") == [1, 2]
    assert tokens.text([1, 2]) == "ab"


@given(st.lists(st.integers(2, 11), max_size=8))
def test_a_text_is_that_of_its_bytes(ids: list[int]) -> None:
    whole = b"".join(PIECES[each] or b"" for each in ids)
    try:
        expected: str | None = whole.decode()
    except UnicodeDecodeError:
        expected = None
    assert TOKENS.text(ids) == expected
