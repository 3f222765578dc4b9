"""The last number of a text, in one spelling."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.tasks.numbers import canonical, last_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Natalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### 1,234,567", "1234567"),
        ("She pays $5.", "5"),
        ("She pays -$5", "-5"),
        ("She pays $-5", "-5"),
        ("that is 5.0 of them", "5"),
        ("The answer is -3", "-3"),
        ("The answer is −3", "-3"),
        ("from 10-3", "3"),
        ("x-3", "3"),
        ("- 3", "3"),
        ("so--3", "3"),
        ("12,5", "5"),
        ("0.50", "1/2"),
        (".5", "1/2"),
        ("1/2", "1/2"),
        ("2 / 4", "1/2"),
        ("1 1/2 cups", "3/2"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        ("3/0", None),
        ("50%", "50"),
        ("1.5e3 m", "1500"),
        ("**42**", "42"),
        ("٤٢", "42"),
        ("४२", "42"),
        ("１，０００円", "1000"),
        ("1\u202f000 €", "1000"),
        ("١٬٠٠٠", "1000"),
        ("20 m²", "20"),
        ("none at all", None),
        ("", None),
        ("9" * 101, None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1,000", "1000", True),
        ("$5", "5.0", True),
        ("5.", "5", True),
        ("50%", "50", True),
        ("1/2", "0.5", True),
        ("-0.5", "-1/2", True),
        ("-3", "3", False),
        ("5 apples", "5", False),  # reading the number out of it is the parser's
        ("Forty  Two", "forty two", True),
        ("ｘ", "x", True),
        ("x", "y", False),
    ],
)
def test_equal_answers_have_one_spelling(one: str, other: str, equal: bool) -> None:
    assert (canonical(one) == canonical(other)) is equal


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_are_read_in_every_spelling(number: int) -> None:
    for text in (str(number), f"{number:,}", f"{number}.00", f"the answer is {number:,}."):
        assert last_number(text) == str(number)
    assert canonical(f"{number:,}") == str(number)


@given(st.fractions(-(10**40), 10**40, max_denominator=10**6))
def test_fractions_are_exact(value: Fraction) -> None:
    assert last_number(f"= {value}") == str(value) == canonical(str(value))


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
@pytest.mark.parametrize("unit", ["9", "1,", "1,000,", "1/", "1 ", "-", "$", "1.", "1e", "\\frac{1}{", "٤"])
def test_a_million_characters_are_read_in_no_time(unit: str) -> None:
    last_number(unit * (10**6 // len(unit)))
    canonical(unit * (10**6 // len(unit)))
