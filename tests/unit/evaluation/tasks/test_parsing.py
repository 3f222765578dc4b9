"""One reader a task."""

from __future__ import annotations

from typing import Any

import pytest
from task_builders import task_of

from configs import ConfigError
from configs.task import TaskKind
from evaluation.tasks.parsing import answer_reader

LABELS = {"labels": {"1": "positive", "0": "negative"}}


def pattern(regex: str) -> dict[str, Any]:
    return {"parser": {"kind": "pattern", "regex": regex}}


@pytest.mark.parametrize(
    ("kind", "settings", "text", "expected"),
    [
        ("classification", LABELS, "It is negative.", ("0",)),
        ("classification", LABELS, "dunno", None),
        ("classification", LABELS | {"parser": {"kind": "first_line"}}, "\nPositive\nor negative", ("1",)),
        ("classification", LABELS | {"parser": {"kind": "first_line"}}, "It is positive", None),
        ("classification", LABELS | pattern("(?i)verdict: (\\w+)"), "negative? Verdict: positive", ("1",)),
        ("classification", LABELS | pattern("verdict: (\\w+)"), "positive", None),
        ("classification", LABELS | {"parser": {"kind": "number"}}, "I give it 0", ("0",)),
        ("tagging", {"labels": ["PER"]}, "PER: b", ("1 2 PER",)),
        ("extractive_qa", {}, "\n Paris \nbecause", ("Paris",)),
        ("extractive_qa", {}, " \n ", ("",)),
        ("generation", {}, " two\nlines ", ("two\nlines",)),
        ("exact_match", {}, "6 * 7 = 42.", ("42",)),
        ("exact_match", {}, "no number", None),
        ("exact_match", pattern("#### (.*)"), "7\n#### 42 \n8", ("42",)),
        ("exact_match", pattern("[0-9]+"), "a 12 b", ("12",)),
        ("exact_match", pattern("a(b)?"), "a", None),
        ("exact_match", pattern("x(.)"), "x\udc80", ("?",)),
    ],
)
def test_answers_are_read(
    kind: TaskKind, settings: dict[str, Any], text: str, expected: tuple[str, ...] | None
) -> None:
    assert answer_reader(task_of(kind, **settings))(text, ["a", "b"]) == expected


@pytest.mark.parametrize("regex", ["(", "(?<=a)b", r"(a)\1"])
def test_what_is_not_a_pattern_of_re2_is_refused_in_one_line(regex: str) -> None:
    with pytest.raises(ConfigError, match=r"task t: parser.regex='.*' is not a pattern of RE2 \(.*\): see"):
        answer_reader(task_of("exact_match", **pattern(regex)))


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
@pytest.mark.parametrize("kind", ["number", "first_line", "text"])
def test_a_million_characters_are_read_in_no_time(kind: str) -> None:
    read = answer_reader(task_of("exact_match", parser={"kind": kind}))
    read("1 ,\n" * 250_000, [])


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
def test_a_pattern_takes_time_in_proportion_to_the_text() -> None:
    read = answer_reader(task_of("exact_match", **pattern("(a*)*b")))
    assert read("a" * 10**6, []) is None
