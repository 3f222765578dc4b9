"""A template makes a text of a row, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ConfigError
from evaluation.tasks.templates import UnfitRowError, row_template


def fill(source: str, **row: Any) -> str:
    return row_template(source, task="t", key="template").fill(row)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Sort: {{ text }}", "Sort: a b "),
        ("{{ text.strip() | upper }}", "A B"),
        ("{% for one in options %}{{ loop.index }}. {{ one }}\n{% endfor %}", "1. x\n2. y\n"),
        ("{{ options | join(', ') }}", "x, y"),
        ("{{ 2 * number }}", "6"),
        ("{{ missing | default('-') }}", "-"),
        ("{% if missing is defined %}a{% else %}b{% endif %}", "b"),
        ("{{ row['with space'] }}", "z"),
    ],
)
def test_what_a_template_makes_of_a_row(source: str, text: str) -> None:
    assert fill(source, text="a b ", options=["x", "y"], number=3, row={"with space": "z"}) == text


def test_it_knows_what_it_reads() -> None:
    source = "{% for o in options %}{{ o }}{% endfor %}{{ text }}"
    assert row_template(source, task="t", key="template").reads == ("options", "text")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ missing }}", "template: 'missing' is undefined"),
        ("{{ text.missing }}", "has no attribute 'missing'"),
        ("{{ number / 0 }}", "template: division by zero"),
        ("{{ text + number }}", "template: "),
        ("{{ text.__class__.__mro__ }}", "template: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ text.center(9) }}", "is not safely callable"),
        ("{{ '{:>9}'.format(text) }}", "is not safely callable"),
        ("{{ text * 9 }}", "template: * is for numbers alone"),
        ("{{ '%9s' % text }}", "template: % is for numbers alone"),
        ("{{ 9 ** 9 }}", "template: ** is for numbers alone"),
        ("{{ range(9) }}", "template: 'range' is undefined"),
        ("{{ text | default(1) }}{% for one in many %}{{ text }}{{ text }}{% endfor %}", "writes more than 1,000,000"),
    ],
)
def test_a_row_that_cannot_be_filled_in_has_a_reason(source: str, reason: str) -> None:
    with pytest.raises(UnfitRowError) as error:
        fill(source, text="abc", number=3, many=[0] * 10**6)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ text", "template is not a template of Jinja"),
        ("{% for a in b %}", "template is not a template of Jinja"),
        ("{{ text | random }}", "template is not a template of Jinja"),
        ("{{ text | center(9) }}", "template is not a template of Jinja"),
        ("{% for a in b %}{% for c in d %}{% endfor %}{% endfor %}", "template loops inside a loop"),
        ("{% for a in b recursive %}{{ loop(a) }}{% endfor %}", "template loops inside a loop, or through itself"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "template defines or includes something"),
        ("{% include 'other' %}", "template defines or includes something"),
    ],
)
def test_what_a_template_may_not_do_is_refused_at_once(source: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"task t: {said}"):
        fill(source, text="abc", b=[], d=[])


@given(st.text() | st.sampled_from(["{{ 7 * 6 }}", "{% for a in b %}", "<script>", "{{ self }}"]))
def test_the_text_of_a_row_is_never_executed(text: str) -> None:
    assert fill("<{{ text }}>", text=text) == f"<{text}>"


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
def test_a_long_row_takes_no_time() -> None:
    fill("{% for one in many %}{% endfor %}", many=[0] * 10**6)
