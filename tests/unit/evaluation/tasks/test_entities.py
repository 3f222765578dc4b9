"""Lines `TYPE: words` become spans of the row's tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_builders import task_of

from evaluation.tasks.entities import entity_reader
from evaluation.tasks.label_names import LabelNames

READ = entity_reader(LabelNames.of(task_of("tagging", labels={"PER": "person", "LOC": "place"})))
TOKENS = ["Ada", "met", "Ada", "Lovelace", "'s", "friend", "in", "the", "U.S.", ",", "New", "York", "(", "NY", ")"]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("PER: Ada", ["0 1 PER"]),
        ("PER: Ada\nPER: Ada", ["0 1 PER", "2 3 PER"]),
        ("PER: Ada\nPER: Ada Lovelace", ["0 1 PER", "2 4 PER"]),
        ("PER: Ada\nPER: Ada\nPER: Ada\nPER: ada.", ["0 1 PER", "2 3 PER"]),
        ("LOC: Ada\nPER: Ada\nLOC: Ada", ["0 1 LOC", "2 3 PER"]),
        ("LOC: Paris\nPER: Paris\nLOC: Paris\nLOC: York", ["-1 -1 LOC", "-1 -1 PER", "11 12 LOC"]),
        ("LOC: U.S.", ["8 9 LOC"]),
        ("LOC: U.S.,", ["8 10 LOC"]),
        ("LOC: “new york”.", ["10 12 LOC"]),
        ("LOC: York", ["11 12 LOC"]),
        ("LOC: Yor", ["-1 -1 LOC"]),
        ("LOC: Paris", ["-1 -1 LOC"]),
        ("per: Ada Lovelace's", ["2 5 PER"]),
        ("Person: ＡＤＡ", ["0 1 PER"]),
        ("- **PER**: Ada\n2. place: *New York*", ["0 1 PER", "10 12 LOC"]),
        ("The entities are:\nPER: Ada\nDATE: 1842\nthat is all", ["0 1 PER"]),
        ("PER: Ada Lovelace\nPER: Lovelace", ["-1 -1 PER", "2 4 PER"]),
        ("PER:", ["-1 -1 PER"]),
        ("none", []),
        ("None.", []),
        ("", []),
    ],
)
def test_lines_are_looked_up_in_the_row(text: str, spans: list[str]) -> None:
    assert READ(text, TOKENS) == tuple(spans)


@pytest.mark.parametrize("text", ["Ada is a person", "DATE: 1842", "PER Ada"])
def test_what_names_no_type_is_not_an_answer(text: str) -> None:
    assert READ(text, TOKENS) is None


def test_scripts_without_spaces_are_found_too() -> None:
    assert READ("LOC: 东京", ["我", "在", "东京", "。"]) == ("2 3 LOC",)


@given(st.lists(st.sampled_from(["Ada", "met", "U.S.", "(", "New"]), min_size=1, max_size=12), st.data())
def test_no_token_is_used_twice(tokens: list[str], data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(tokens), min_size=1, max_size=3).map(" ".join)
    lines = data.draw(st.lists(words, min_size=1, max_size=12))
    spans = [
        tuple(map(int, span.split()[:2])) for span in READ("\n".join(f"PER: {line}" for line in lines), tokens) or ()
    ]
    used = [token for start, end in spans for token in range(start, end)]
    assert len(used) == len(set(used))
    assert min(len({line.strip(" (") for line in lines}), len(tokens)) <= len(spans) <= min(len(lines), len(tokens))


def test_lines_beyond_the_tokens_of_a_row_are_read_where_those_before_were_the_same() -> None:
    assert READ("LOC: Rome\n" * 9 + "PER: Ada", ["Ada", "in", "Rome"]) == ("0 1 PER", "2 3 LOC")


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
@pytest.mark.parametrize("unit", ["PER: Ada\n", "PER: a", ":", "1. ", "PER: x\n"])
def test_a_million_characters_are_read_in_no_time(unit: str) -> None:
    READ(unit * (10**6 // len(unit)), ["a"] * 200 + ["Ada"] * 200)
