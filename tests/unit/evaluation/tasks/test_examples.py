"""Rows become examples, and what cannot be used has a reason."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_builders import answered, task_of, values

from configs import ConfigError, DataError
from configs.task import TaskConfig, TaskKind
from evaluation.tasks.examples import Example, content_free_examples, read_examples
from evaluation.tasks.parsing import answer_reader
from evaluation.tasks.templates import UnfitRowError

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not beside the checkout"),
]

TEXTS = st.text() | st.sampled_from(["", "a", "7", "B-PER", "O", "{{ x }}", "\ud800"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)

LABELS: dict[TaskKind, list[str]] = {"classification": ["a", "b"], "tagging": ["PER", "LOC"]}
GOOD: dict[TaskKind, dict[str, Any]] = {
    "classification": {"label": "a"},
    "tagging": {"tokens": ["Ada", "in", "Rome"], "tags": ["B-PER", "O", "B-LOC"]},
    "extractive_qa": {"context": "Ada was in Rome.", "answers": ["Rome"]},
    "generation": {"references": ["one", "two"]},
    "exact_match": {"answer": "3 + 4 = 7\n#### 7"},
}


def task(kind: TaskKind, **settings: Any) -> TaskConfig:
    return task_of(kind, **({"labels": LABELS[kind]} if kind in LABELS else {}) | settings)


def one(config: TaskConfig, row: dict[str, Any], *, worked: bool = False) -> Example:
    return read_examples(config, [(3, {"text": "hello"} | row)], worked=worked).usable[0]


@pytest.mark.parametrize(
    ("kind", "gold"),
    [
        ("classification", ("a",)),
        ("tagging", ("0 1 PER", "2 3 LOC")),
        ("extractive_qa", ("Rome",)),
        ("generation", ("one", "two")),
        ("exact_match", ("7",)),
    ],
)
def test_a_good_row(kind: TaskKind, gold: tuple[str, ...]) -> None:
    example = one(task(kind), GOOD[kind])
    assert (example.row, example.text, example.question, example.worked) == (3, "hello", "hello", "")
    assert example.gold == gold
    assert example.tokens == tuple(GOOD[kind].get("tokens", ()))


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("classification", {}, "field label is missing"),
        ("classification", {"label": "c"}, "label 'c' is not among labels"),
        ("classification", {"label": ""}, "label '' is not among labels"),
        ("classification", {"label": None}, "label holds nothing where a label is due"),
        ("classification", {"label": True}, "label holds a bool where a label is due"),
        ("classification", {"label": ["a"]}, "label holds a list where a label is due"),
        ("classification", {"label": 1}, "label '1' is not among labels"),
        ("tagging", {"tokens": ["x"]}, "field tags is missing"),
        ("tagging", {"tokens": ["x"], "tags": ["O", "O"]}, "2 tags for 1 tokens"),
        ("tagging", {"tokens": [], "tags": []}, "0 tags for 0 tokens"),
        ("tagging", {"tokens": ["x"], "tags": [0]}, "tags holds a list where a list of texts is due"),
        ("tagging", {"tokens": 3, "tags": ["O"]}, "tokens holds a int where a list of texts is due"),
        ("tagging", {"tokens": ["x"], "tags": ["PER"]}, "tag 0 is 'PER': write O, or one of"),
        ("tagging", {"tokens": ["x"], "tags": ["B-ORG"]}, "type 'ORG' is not among labels"),
        ("extractive_qa", {"answers": ["x"]}, "field context is missing"),
        ("extractive_qa", {"context": " ", "answers": ["x"]}, "context is empty"),
        ("extractive_qa", {"context": "x", "answers": 3}, "answers are a int: give a text, or a list of texts"),
        ("generation", {"references": []}, "references holds no reference with anything in it"),
        ("generation", {"references": [" ", ""]}, "references holds no reference with anything in it"),
        ("generation", {"references": [None]}, "answers are a list: give a text"),
        ("exact_match", {"answer": ""}, "answer is empty"),
        ("exact_match", {"answer": "none"}, "answer holds no number"),
        ("exact_match", {"answer": None}, "answer holds nothing where text is due"),
        ("classification", {"label": "a", "text": None}, None),
    ],
)
def test_a_malformed_row_is_set_aside_and_costs_no_other(
    kind: TaskKind, row: dict[str, Any], reason: str | None
) -> None:
    rows = [(0, {"text": "x"} | GOOD[kind]), (1, {"text": "y"} | row), (2, "invalid JSON: broken")]
    read = read_examples(task(kind), rows)
    assert [example.row for example in read.usable] == [0] + [1] * (reason is None)
    assert read.set_aside[-1] == "row 2: invalid JSON: broken"
    if reason is not None:
        assert read.set_aside[0].startswith(f"row 1: {reason}")
        assert "\n" not in read.set_aside[0]


def test_a_field_that_the_template_reads_may_be_missing() -> None:
    read = read_examples(task("classification"), [(0, {"label": "a"}), (1, {"label": "a", "text": "x"})])
    assert read.set_aside == ("row 0: template: 'text' is undefined",)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(list(GOOD)), st.data())
def test_no_row_is_a_crash(kind: TaskKind, data: st.DataObject) -> None:
    names = sorted({"text", *GOOD[kind]})
    row = data.draw(st.dictionaries(st.sampled_from(names), JSON))
    answer = data.draw(st.text())
    config = task(kind, answer="{{ gold }}")
    read = read_examples(config, [(0, {"text": "x"} | GOOD[kind]), (1, row)], worked=True)
    assert len(read.usable) + len(read.set_aside) == 2
    # Nor is an answer, to any row that can be asked.
    predicted = [answered(one.gold, answer_reader(config)(answer, one.tokens), row=one.row) for one in read.usable]
    assert values(kind, predicted, labels=LABELS.get(kind, ()))


def test_a_field_may_be_nested_without_end() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    read = read_examples(
        task("classification", template="{% if text %}{% endif %}"),
        [(0, {"label": "a", "text": deep}), (1, {"label": "a", "text": [["x"], "y"]})],
    )
    assert read.set_aside == ("row 0: a field holds lists in lists without end",)
    assert read.usable[0].text == "x y"


def test_when_no_row_is_left_it_is_said_once() -> None:
    with pytest.raises(DataError, match=r"task t: none of 2 rows can be used; row 0: field label is missing"):
        read_examples(task("classification"), [(0, {"text": "a"}), (1, {"text": "b"})])


def test_a_broken_template_is_refused_before_any_row_is_read() -> None:
    with pytest.raises(ConfigError, match="task t: template is not a template of Jinja"):
        read_examples(task("classification", template="{{"), [])


@pytest.mark.parametrize(
    ("answers", "gold"),
    [
        ("Rome", ("Rome",)),
        (["Rome", "", "the city"], ("Rome", "the city")),
        ({"text": ["Rome"], "answer_start": [11]}, ("Rome",)),
        ({"text": [], "answer_start": []}, ("",)),
        ([], ("",)),
    ],
)
def test_answers_come_in_several_forms(answers: object, gold: tuple[str, ...]) -> None:
    assert one(task("extractive_qa"), {"context": "x", "answers": answers}).gold == gold


def test_labels_may_be_numbers() -> None:
    assert one(task("classification", labels={"0": "no", "1": "yes"}), {"label": 1}).gold == ("1",)


@pytest.mark.parametrize("value", [1, "1"])  # a CSV has no numbers
def test_a_label_may_be_its_place_in_labels(value: object) -> None:
    words = {"negative": "bad", "positive": "good"}
    config = task("classification", labels=words, label_is_index=True, answer="{{ words }}")
    example = one(config, {"label": value}, worked=True)
    assert (example.gold, example.worked) == (("positive",), "good")


@pytest.mark.parametrize("value", [2, -1, "positive", "\u0661", "1" * 5000])
def test_what_is_not_a_place_in_labels_is_set_aside(value: object) -> None:
    config = task("classification", labels=["negative", "positive"], label_is_index=True)
    found = read_examples(config, [(0, {"text": "x", "label": 0}), (1, {"text": "x", "label": value})])
    assert [example.gold for example in found.usable] == [("negative",)]
    assert "is not a place in labels: 0 to 1 (label_is_index)" in found.set_aside[0]


def test_numbers_where_labels_are_words_are_refused_with_the_cure() -> None:
    config = task("classification", labels=["negative", "positive"])
    with pytest.raises(DataError) as caught:
        read_examples(config, [(0, {"text": "x", "label": 0}), (1, {"text": "x", "label": 1})])
    said = str(caught.value)
    assert "none of 2 rows can be used; row 0: label '0' is not among labels (negative, positive)" in said
    assert "label_is_index: true" in said and "\n" not in said


def test_fields_may_lie_deep_and_pairs_are_kept() -> None:
    config = task("generation", fields={"references": "instances.0.output", "pair": "id"})
    example = one(config, {"instances": [{"output": "so"}], "id": 7})
    assert (example.gold, example.pair) == (("so",), "7")
    aside = read_examples(
        config, [(0, {"text": "", "instances": []}), (1, {"text": "", "id": 1, "instances": [{"output": "x"}]})]
    )
    assert aside.set_aside == ("row 0: field instances.0.output is missing",)


@pytest.mark.parametrize(
    ("kind", "settings", "parts"),
    [
        ("classification", {}, ("hello",)),
        ("classification", {"fields": {"label": "label", "second": "hypothesis"}}, ("hello", "he slept")),
        ("extractive_qa", {"template": "{{ context }} {{ text }}"}, ("hello", "Ada was in Rome.")),
    ],
)
def test_a_head_reads_one_text_or_two(kind: TaskKind, settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    settings = {"template": "{{ text }} {{ hypothesis }}", **settings}
    if "fields" not in settings:
        settings["template"] = settings["template"].replace(" {{ hypothesis }}", "")
    assert one(task(kind, **settings), GOOD[kind] | {"hypothesis": "he slept"}).parts == parts


def test_a_second_text_that_is_missing_costs_its_row() -> None:
    config = task("classification", fields={"label": "label", "second": "hypothesis"})
    read = read_examples(
        config, [(0, {"text": "x", "label": "a"}), (1, {"text": "x", "label": "a", "hypothesis": "y"})]
    )
    assert read.set_aside == ("row 0: field hypothesis is missing",)


def test_rows_without_labels_are_examples_without_anything_gold() -> None:
    read = read_examples(task("classification"), [(0, {"text": "x"})], labelled=False)
    assert [(example.text, example.gold) for example in read.usable] == [("x", ())]


def test_rows_without_labels_need_not_say_whether_they_are_in_a_pair() -> None:
    config = task("classification", fields={"label": "label", "pair": "pair"})
    assert read_examples(config, [(0, {"text": "x"})], labelled=False).usable[0].pair is None
    with pytest.raises(DataError, match="field pair is missing"):
        read_examples(config, [(0, {"text": "x", "label": "a"})])


def test_a_worked_answer_may_use_what_is_right() -> None:
    answer = "{% for e in entities %}{{ e.type }}: {{ e.words }}\n{% endfor %}"
    config = task("tagging", labels={"PER": "person", "LOC": "place"}, answer=answer)
    example = one(config, GOOD["tagging"], worked=True)
    assert example.worked == "person: Ada\nplace: Rome\n"
    assert answer_reader(config)(example.worked, example.tokens) == example.gold
    config = task(
        "classification", labels={"a": "yes", "b": "no"}, answer="{{ words }}", template="{{ labels | join('/') }}?"
    )
    assert (one(config, {"label": "b"}, worked=True).worked, one(config, {"label": "b"}).question) == ("no", "yes/no?")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def conll(path: Path) -> list[dict[str, Any]]:
    sentences = [block.split("\n") for block in path.read_text(encoding="utf-8").split("\n\n")]
    rows = [[line.split() for line in sentence if line.strip()] for sentence in sentences]
    return [
        {"text": "", "tokens": [words[0] for words in row], "tags": [words[-1] for words in row]}
        for row in rows
        if row and row[0][0] != "-DOCSTART-"
    ]


def banking() -> tuple[TaskConfig, list[dict[str, Any]]]:
    with (SHARED / "banking77/test.csv").open(encoding="utf-8", newline="") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    labels = sorted({row["category"] for row in rows})
    return task("classification", labels=labels, fields={"label": "category"}, answer="{{ words }}"), rows


def wikigold() -> tuple[TaskConfig, list[dict[str, Any]]]:
    answer = "{% for e in entities %}{{ e.type }}: {{ e.words }}\n{% endfor %}"
    config = task("tagging", labels=["PER", "LOC", "ORG", "MISC"], answer=answer)
    return config, conll(SHARED / "wikigold/wikigold.conll.txt")


def gsm8k() -> tuple[TaskConfig, list[dict[str, Any]]]:
    config = task("exact_match", template="{{ question }}", answer="{{ row.answer }}")
    return config, list(lines(SHARED / "gsm8k/test.jsonl"))


def scitldr() -> tuple[TaskConfig, list[dict[str, Any]]]:
    config = task(
        "generation", template="{{ source | join(' ') }}", fields={"references": "target"}, answer="{{ gold[0] }}"
    )
    return config, list(lines(SHARED / "scitldr/test.jsonl"))[:150]


@pytest.mark.parametrize(
    ("load", "rows"),
    [
        pytest.param(banking, 3080, id="banking77", marks=real_data),
        pytest.param(wikigold, 1696, id="wikigold", marks=real_data),
        pytest.param(gsm8k, 1319, id="gsm8k", marks=real_data),
        pytest.param(scitldr, 150, id="scitldr", marks=real_data),
    ],
)
def test_the_right_answers_of_real_data_are_read_and_score_all(load: Any, rows: int) -> None:
    config, data = load()
    read = read_examples(config, enumerate(data), worked=True)
    assert (len(read.usable), read.set_aside) == (rows, ())
    reader = answer_reader(config)
    labels = tuple(config.verbalisers)
    examples = [
        answered(example.gold, reader(example.worked, example.tokens), row=example.row) for example in read.usable
    ]
    scores = values(config.kind, examples, labels=labels)
    full = 100.0 if config.kind == "generation" else 1.0
    first = scores[config.judged_by]
    assert first == pytest.approx(full, abs=0.02 * full if config.kind == "tagging" else 1e-9)
    gold = [answered(example.gold, example.gold, row=example.row) for example in read.usable]
    assert all(value == pytest.approx(full) for value in values(config.kind, gold, labels=labels).values())


def test_questions_without_content_have_the_words_of_the_template_alone() -> None:
    task = task_of(
        "classification",
        labels=["good", "bad"],
        template="{{ text }} ({{ place.name }}) is {{ labels | join(' or ') }}:",
    )
    with pytest.raises(UnfitRowError):
        content_free_examples(task)
    plain = task_of(
        "classification", labels=["good", "bad"], template="{{ text }} at {{ place }} is {{ labels | join(' or ') }}:"
    )
    examples = content_free_examples(plain)
    assert [example.question for example in examples] == [
        "N/A at N/A is good or bad:",
        "[MASK] at [MASK] is good or bad:",
        " at  is good or bad:",
    ]
    assert {(example.row, example.gold, example.labelled) for example in examples} == {(-1, (), False)}
