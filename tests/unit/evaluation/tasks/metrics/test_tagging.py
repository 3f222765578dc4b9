"""Entity F1 is nervaluate's, strict, partial and by type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate import Evaluator
from task_builders import rows_of, values

from evaluation.tasks.spans import spans_of

TYPES = ("PER", "LOC")
Tags = list[str]
ROW = st.integers(1, 10).flatmap(
    lambda size: st.tuples(
        *2 * [st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), min_size=size, max_size=size)]
    )
)


def ours(rows: list[tuple[Tags, Tags]]) -> dict[str, float]:
    pairs = [([str(s) for s in spans_of(gold)], [str(s) for s in spans_of(answer)]) for gold, answer in rows]
    return values("tagging", rows_of(pairs), labels=TYPES)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_it_is_nervaluates(rows: list[tuple[Tags, Tags]]) -> None:
    gold, answers = [row[0] for row in rows], [row[1] for row in rows]
    results = Evaluator(gold, answers, tags=list(TYPES), loader="list").evaluate()
    found = ours(rows)
    theirs = {
        "entity_f1": results["overall"]["strict"],
        "entity_f1_partial": results["overall"]["partial"],
        **{f"entity_f1[{kind}]": result["strict"] for kind, result in results["entities"].items()},
    }
    for name, result in theirs.items():
        if result.possible + result.actual == 0:
            assert np.isnan(found[name])
        else:
            assert found[name] == pytest.approx(result.f1), name
    # It leaves out the types that occur nowhere.
    assert all(np.isnan(found[f"entity_f1[{kind}]"]) for kind in set(TYPES) - set(results["entities"]))
    strict = results["overall"]["strict"]
    if strict.actual and strict.possible:
        assert found["entity_precision"] == pytest.approx(strict.precision)
        assert found["entity_recall"] == pytest.approx(strict.recall)


def test_by_hand() -> None:
    gold = ["0 2 PER", "4 5 LOC", "6 9 LOC"]
    answer = ["0 2 PER", "4 5 PER", "7 8 LOC", "-1 -1 LOC"]
    found = values("tagging", rows_of([(gold, answer)]), labels=TYPES)
    assert found["entity_f1"] == pytest.approx(2 * 1 / 7)
    assert found["entity_f1_partial"] == pytest.approx(2 * 2.5 / 7)
    assert found["entity_precision"] == pytest.approx(1 / 4)
    assert found["entity_recall"] == pytest.approx(1 / 3)
    assert found["entity_f1[PER]"] == pytest.approx(2 / 3)
    assert found["entity_f1[LOC]"] == 0.0


def test_an_unread_answer_names_no_entity_and_misses_all() -> None:
    found = values("tagging", rows_of([(["0 1 PER"], None), (["0 1 PER"], ["0 1 PER"])]), labels=TYPES)
    assert found["entity_f1"] == pytest.approx(2 / 3)
    assert np.isnan(found["entity_f1[LOC]"])


def test_entities_that_stand_nowhere_never_match_each_other() -> None:
    found = values("tagging", rows_of([([], ["-1 -1 PER", "-1 -1 PER"])]), labels=TYPES)
    assert found["entity_f1"] == found["entity_f1_partial"] == 0.0
