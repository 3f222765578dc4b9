"""Texts of every kind of task about somebody else, and when an answer counts as another one."""

from __future__ import annotations

import numpy as np
import pytest

from configs.task import TaskKind
from evaluation.results import TaskExample
from evaluation.tasks.examples import Example
from orchestration.audits.tasks.swapped_texts import _changed, _moved, swapped_texts
from orchestration.inputs.task_examples import Beliefs


def example(*parts: str, tokens: str = "", context: str = "") -> Example:
    return Example(0, " ".join(parts), "", "", (), tuple(tokens.split()), context, None, parts, labelled=True)


def test_only_texts_that_name_somebody_are_swapped() -> None:
    found = swapped_texts(
        [example("She paid twice"), example("it rains"), example("he left"), example("his bill")],
        kind="classification",
        at_most=2,
    )
    assert [each.swapped.parts for each in found] == [("He paid twice",), ("she left",)]


def test_both_texts_of_a_pair_and_a_passage_are_swapped() -> None:
    (pair,) = swapped_texts([example("Emma sleeps", "a man sleeps")], kind="classification", at_most=9)
    assert pair.swapped.parts == ("James sleeps", "a woman sleeps")
    (asked,) = swapped_texts([example("who left", context="He left.")], kind="extractive_qa", at_most=9)
    assert asked.swapped.parts == ("who left",) and asked.swapped.context == "She left."


def test_words_stay_as_many_as_they_are() -> None:
    (one,) = swapped_texts([example(tokens="Emma met her brother .")], kind="tagging", at_most=9)
    assert one.swapped.tokens == ("James", "met", "his", "sister", ".")
    assert swapped_texts([example(tokens="Oslo is wet")], kind="tagging", at_most=9) == ()


@pytest.mark.parametrize(
    ("kind", "before", "after", "changed"),
    [
        ("classification", ("good",), ("good",), 0.0),
        ("classification", ("good",), ("bad",), 1.0),
        ("tagging", ("0 2 PER",), ("0 1 PER",), 0.25),
        ("tagging", ("0 2 PER",), ("0 2 LOC",), 0.5),
        ("extractive_qa", ("her brother",), ("his sister",), 0.0),
        ("extractive_qa", ("her brother",), ("Her brother.",), 0.0),
        ("extractive_qa", ("her brother",), ("the bill",), 1.0),
    ],
)
def test_when_an_answer_is_another_one(
    kind: TaskKind, before: tuple[str, ...], after: tuple[str, ...], changed: float
) -> None:
    said = [TaskExample(0, 0, "", (), "", each, 1.0, 0) for each in (before, after)]
    assert _changed(*said, words=4, kind=kind) == changed


def test_how_sure_a_model_is_of_its_answer_is_compared_word_by_word() -> None:
    def believes(units: list[int], *rows: tuple[float, float]) -> Beliefs:
        return Beliefs(tuple((unit, unit) for unit in units), np.log(np.array(rows, dtype=np.float32)))

    before = believes([0, 1], (0.9, 0.1), (0.4, 0.6))
    after = believes([0, 1], (0.7, 0.3), (0.5, 0.5))
    assert _moved(before, after, kind="tagging") == pytest.approx((0.2 + 0.1) / 2)
    # A word that is cut off in one of the two is not compared.
    assert _moved(before, believes([1], (0.5, 0.5)), kind="tagging") == pytest.approx(0.1)
    span = believes([0, 1], (0.5, 0.2), (0.5, 0.8))
    assert _moved(span, span, kind="extractive_qa") == 0.0
