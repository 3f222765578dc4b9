from __future__ import annotations

import math

import numpy as np
import pytest
from task_builders import task_of

from evaluation.tasks.examples import read_examples
from orchestration.comparison.belief_answers import answers_of_beliefs
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.task_texts import WHOLE


def beliefs(units: list[tuple[int, int]], *rows: list[float]) -> Beliefs:
    return Beliefs(tuple(units), np.array(rows, np.float32))


def test_the_likeliest_class_with_its_probability() -> None:
    task = task_of("classification", labels=["good", "bad"])
    examples = read_examples(task, [(7, {"text": "tea", "label": "bad"}), (9, {"text": "mud", "label": "bad"})]).usable
    found, silent = answers_of_beliefs(examples, [beliefs([WHOLE], [0.0, math.log(3)]), None], task=task)
    assert (found.row, found.gold, found.predicted) == (7, ("bad",), ("bad",))
    assert found.confidence == pytest.approx(0.75)
    assert silent.predicted is None and math.isnan(silent.confidence)


def test_words_that_nobody_sees_are_outside_of_entities() -> None:
    task = task_of("tagging", labels=["LOC"])
    row = {"text": "in oslo rome", "tokens": ["in", "oslo", "rome"], "tags": ["O", "B-LOC", "I-LOC"]}
    (example,) = read_examples(task, [(0, row)]).usable
    likely = [beliefs([(1, 1), (2, 2)], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0])]
    (found,) = answers_of_beliefs([example], likely, task=task)
    assert found.predicted == ("1 3 LOC",) == example.gold
    (found,) = answers_of_beliefs([example], [beliefs([(1, 1)], [0.0, 5.0, 0.0])], task=task)
    assert found.predicted == ("1 2 LOC",)


def test_the_likeliest_span_is_cut_out_of_the_passage() -> None:
    task = task_of("extractive_qa")
    row = {"text": "where", "question": "where", "context": "in oslo or rome", "answers": ["oslo"]}
    (example,) = read_examples(task, [(0, row)]).usable
    units = [(0, 2), (3, 7), (8, 10), (11, 15)]
    belief = beliefs(units, [0.0, 0.0], [4.0, 3.0], [0.0, 0.0], [1.0, 2.0])
    (found,) = answers_of_beliefs([example], [belief], task=task)
    assert (found.answer, found.predicted) == ("oslo", ("oslo",))
