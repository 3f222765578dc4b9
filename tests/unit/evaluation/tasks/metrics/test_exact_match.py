"""Numbers match by value, other answers by their letters."""

from __future__ import annotations

import pytest
from task_builders import rows_of, values


@pytest.mark.parametrize(
    ("gold", "predicted", "hit"),
    [
        ("1000", "1,000", True),
        ("5", "$5.00", True),
        ("1/2", "0.5", True),
        ("-3", "3", False),
        ("18", "18", True),
        ("18", None, False),
        ("18", "", False),
        ("18", [], False),
        (["no", "none"], "None", True),
    ],
)
def test_one_answer(gold: str, predicted: str | None, hit: bool) -> None:
    assert values("exact_match", rows_of([(gold, predicted)])) == {"exact_match": float(hit)}


def test_it_is_the_share_of_hits() -> None:
    assert values("exact_match", rows_of([("1", "1"), ("2", "3"), ("4", None)]))["exact_match"] == pytest.approx(1 / 3)
