from __future__ import annotations

import numpy as np
from task_builders import task_of

from evaluation.tasks.examples import read_examples
from orchestration.inputs.task_examples import CERTAIN, Beliefs, Said, make_examples
from orchestration.inputs.task_texts import WHOLE, ReadExample

LABELS = ("a", "b", "c")


def text(*tokens: int, gold: int = -1) -> ReadExample:
    return ReadExample(tokens, len(tokens), (WHOLE,), (0,), (gold,), cut=False)


def words(tokens: int, units: dict[int, int], gold: dict[int, int]) -> ReadExample:
    """`units` maps a word to its token, `gold` a word to its label."""
    return ReadExample(
        tuple(range(tokens)),
        tokens,
        tuple((word, word) for word in units),
        tuple(units.values()),
        tuple(gold[word] for word in units),
        cut=False,
    )


def test_texts_keep_their_order_labels_and_the_teachers_logits() -> None:
    beliefs = [Beliefs.of(text(9, 9), np.array([[1.0, 2.0, 3.0]], np.float32)) for _ in range(2)]
    made = make_examples("classification", LABELS, [text(5, 6, 7, gold=2), text(8)], beliefs)
    examples = made.examples
    assert (len(examples), made.unseen) == (2, 0)
    assert examples.token_ids.tolist() == [5, 6, 7, 8]
    assert examples.gold.tolist() == [2, -1]
    assert examples.teacher is not None and examples.teacher.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_without_a_teacher_gold_is_all_there_is() -> None:
    assert make_examples("classification", LABELS, [text(5, gold=1)]).examples.teacher is None


def test_of_words_those_that_both_see_are_learned_by_the_logits_of_the_same_word() -> None:
    student = words(9, {0: 1, 1: 4, 2: 6}, {0: 0, 1: 1, 2: 2})
    teacher = words(6, {0: 2, 2: 3}, {0: 0, 2: 2})
    values = np.arange(18, dtype=np.float32).reshape(6, 3)
    made = make_examples("tagging", LABELS, [student], [Beliefs.of(teacher, values)])
    assert made.unseen == 1
    assert made.examples.unit_tokens.tolist() == [1, 6]
    assert made.examples.gold.tolist() == [0, 2]
    assert made.examples.teacher is not None
    assert made.examples.teacher.tolist() == [values[2].tolist(), values[3].tolist()]


def passage(units: list[tuple[int, int]], gold: tuple[int, int]) -> ReadExample:
    tokens = len(units) + 2
    return ReadExample(tuple(range(tokens)), 2, tuple(units), tuple(range(2, tokens)), gold, cut=False)


def test_the_ends_of_a_span_move_with_the_units_that_both_see() -> None:
    student = passage([(0, 3), (4, 6), (6, 8), (9, 12)], (1, 3))
    teacher = passage([(0, 3), (4, 6), (9, 12)], (1, 2))
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    made = make_examples("extractive_qa", ("first", "last"), [student], [Beliefs.of(teacher, values)])
    assert made.unseen == 1
    assert made.examples.gold.tolist() == [1, 2]
    assert made.examples.teacher is not None and made.examples.teacher.tolist() == values[2:].tolist()


def test_an_end_that_the_teacher_does_not_see_is_not_known() -> None:
    student = passage([(0, 3), (4, 8), (9, 12)], (0, 1))
    teacher = passage([(0, 3), (9, 12)], (-1, -1))
    made = make_examples(
        "extractive_qa", ("first", "last"), [student], [Beliefs.of(teacher, np.zeros((4, 2), np.float32))]
    )
    assert made.examples.gold.tolist() == [-1, -1]


def test_no_examples_are_a_set_too() -> None:
    assert len(make_examples("classification", LABELS, [], []).examples) == 0


def test_what_was_said_is_certain_in_every_kind_of_task() -> None:
    found = Beliefs.certain(text(5, 6, gold=2), kind="classification", labels=3)
    assert found is not None and found.units == (WHOLE,) and found.logits.tolist() == [[0.0, 0.0, CERTAIN]]
    found = Beliefs.certain(words(4, {0: 1, 2: 3}, {0: 1, 2: 0}), kind="tagging", labels=3)
    assert found is not None and found.logits.tolist() == [[0.0, CERTAIN, 0.0], [CERTAIN, 0.0, 0.0]]
    # As many units as ends: rows are units, columns the first and the last.
    found = Beliefs.certain(passage([(0, 3), (4, 6)], (1, 1)), kind="extractive_qa", labels=2)
    assert found is not None and found.logits.tolist() == [[0.0, 0.0], [CERTAIN, CERTAIN]]
    assert Beliefs.certain(passage([(0, 3)], (-1, -1)), kind="extractive_qa", labels=2) is None


def test_what_was_said_takes_the_place_of_gold() -> None:
    (example,) = read_examples(
        task_of("classification", labels=["a", "b"]), [(0, {"text": "x"})], labelled=False
    ).usable
    said = Said(("b",)).of(example)
    assert (said.gold, said.labelled, said.text) == (("b",), True, "x")
