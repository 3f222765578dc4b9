"""What a template can use, and the limit of what it may write (its process is tested with `templates`)."""

from __future__ import annotations

from datetime import datetime

import pytest
from jinja2.exceptions import SecurityError, TemplateError

from orchestration.inputs.template_worker import environment, render

TODAY = datetime(2026, 2, 3)


def rendered(text: str, *, at_most: int = 10_000, **variables: object) -> str:
    return render(environment(TODAY).from_string(text), variables, at_most=at_most)


def test_the_date_is_the_pinned_one() -> None:
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "03 Feb 2026"


def test_json_is_written_as_transformers_writes_it() -> None:
    assert rendered("{{ x | tojson }}", x={"b": "ä<", "a": 1}) == '{"b": "ä<", "a": 1}'
    assert rendered("{{ x | tojson(indent=1) }}", x=[1]) == "[\n 1\n]"


def test_chance_is_the_same_each_time() -> None:
    template = environment(TODAY).from_string("{{ range(1000) | random }}")
    assert render(template, {}, at_most=9) == render(template, {}, at_most=9)


def test_a_template_may_refuse() -> None:
    with pytest.raises(TemplateError, match="no system role"):
        rendered("{{ raise_exception('no system role') }}")


def test_loops_can_be_left_and_marks_of_the_answer_change_nothing() -> None:
    text = "{% for m in x %}{% if m == 2 %}{% break %}{% endif %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}"
    assert rendered(text, x=[1, 2, 3]) == "1"


def test_nothing_can_be_changed_or_reached() -> None:
    with pytest.raises(SecurityError):
        rendered("{{ x.append(1) }}", x=[])
    with pytest.raises(SecurityError):
        rendered("{{ ''.__class__.__mro__ }}")


def test_a_text_without_end_is_cut_off() -> None:
    with pytest.raises(TemplateError, match="it writes more than 1,000 characters"):
        rendered("{% for i in range(100000) %}0123456789{% endfor %}", at_most=1000)
