"""Worked examples: from train, the same whatever the order of the rows, never the question itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_builders import task_of

from configs import DataError
from configs.task import TaskConfig
from evaluation.tasks.examples import Example, read_examples
from evaluation.tasks.few_shot import Turn, WorkedExamples

TRAIN = {"train": {"path": "train.jsonl"}, "test": {"path": "test.jsonl"}}


def task(few_shot: int, **settings: Any) -> TaskConfig:
    plain = {"data": TRAIN, "labels": ["a", "b", "c"], "answer": "{{ words }}.", "template": "Q: {{ text }}"}
    return task_of("classification", few_shot=few_shot, **plain | settings)


def examples(config: TaskConfig, texts: list[str]) -> tuple[Example, ...]:
    rows = [{"text": text, "label": text[0]} for text in texts]
    return read_examples(config, enumerate(rows), worked=True).usable


TEXTS = [f"{label}{number}" for label in "aaabbc" for number in range(4)]
ASKED = examples(task(1), ["a new"])[0]


@given(st.permutations(sorted(set(TEXTS))), st.integers(1, 6))
def test_the_draw_depends_on_what_rows_say_and_not_on_their_order(texts: list[str], count: int) -> None:
    config = task(count)
    turns = WorkedExamples(config, examples(config, texts)).before(ASKED)
    assert turns == WorkedExamples(config, examples(config, sorted(texts))).before(ASKED)
    assert len(turns) == count


@pytest.mark.parametrize("count", range(1, 10))
def test_it_is_balanced_over_labels_and_shows_nothing_twice(count: int) -> None:
    config = task(count)
    turns = WorkedExamples(config, examples(config, TEXTS)).before(ASKED)
    shown = Counter(turn.answer for turn in turns)
    assert max(shown.values()) - min(shown.get(f"{label}.", 0) for label in "abc") <= 1
    assert len({turn.question for turn in turns}) == count
    assert all(turn.question == f"Q: {turn.question[3:]}" and turn.answer == f"{turn.question[3]}." for turn in turns)


def test_another_seed_draws_other_examples() -> None:
    drawn = set()
    for seed in range(8):
        config = task(3, few_shot_seed=seed)
        drawn.add(WorkedExamples(config, examples(config, TEXTS)).before(ASKED))
    assert len(drawn) > 3


@given(st.sampled_from(TEXTS), st.integers(1, 9))
def test_a_copy_of_the_question_is_never_shown(text: str, count: int) -> None:
    config = task(count)
    asked = examples(config, [f"{text} "])[0]
    turns = WorkedExamples(config, examples(config, TEXTS)).before(asked)
    assert len(turns) == count
    assert f"Q: {text}" not in {turn.question for turn in turns}


def test_other_kinds_are_not_balanced() -> None:
    config = task_of("exact_match", data=TRAIN, few_shot=2, answer="#### {{ row.answer }}", template="{{ text }}")
    rows = [{"text": f"1 + {number}", "answer": str(1 + number)} for number in range(5)]
    read = read_examples(config, enumerate(rows), worked=True).usable
    turns = WorkedExamples(config, read).before(read[0])
    assert len(turns) == 2
    assert Turn("1 + 0", "#### 1") not in turns
    assert all(eval(turn.question) == int(turn.answer.removeprefix("#### ")) for turn in turns)


def test_none_are_shown_where_none_are_asked_for() -> None:
    assert WorkedExamples(task(0), ()).before(ASKED) == ()


def test_too_few_rows_are_said() -> None:
    config = task(3)
    with pytest.raises(DataError, match=r"task t: few_shot=3, and data.train has 2 rows that differ: lower few_shot"):
        WorkedExamples(config, examples(config, ["a x", "a  x", "b x"]))
