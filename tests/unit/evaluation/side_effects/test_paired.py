"""A finding has a student's number beside its teacher's on the same rows, and the interval of their difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_builders import ACCURACY, hits

from evaluation.metric import Measured
from evaluation.side_effects.paired import Instrument, found, paired_difference

INSTRUMENT = Instrument("privacy", "membership: loss", "fraction", "0.5 is a guess")


def test_a_finding_holds_all_three_and_the_difference_to_the_teacher() -> None:
    random = np.random.default_rng(0)
    hard = random.random(200)
    student, teacher, untouched = (hits((hard < level).astype(float).tolist()) for level in (0.8, 0.5, 0.4))
    made = found(INSTRUMENT, student, model="kd", method="kd", teacher=teacher, untouched=untouched)
    assert made.teacher is not None and made.untouched is not None and made.difference is not None
    assert (made.value.value, made.teacher.value) == (student.value, teacher.value)
    assert made.untouched.value == untouched.value
    assert made.difference.value == pytest.approx(student.value - teacher.value)
    assert made.difference.interval.low < made.difference.value < made.difference.interval.high
    assert made.unknown is None and made.value.n == made.difference.n == 200
    # In pairs: all who were right stay right, so it is far narrower than for two separate groups of rows.
    apart = paired_difference(teacher, hits((np.roll(hard, 77) < 0.8).astype(float).tolist()))
    assert _width(made.difference) < 0.75 * _width(apart)


def test_a_model_that_does_as_its_teacher_may_still_differ_where_nobody_looked() -> None:
    same = hits([1.0, 0.0] * 20)
    difference = paired_difference(same, same)
    assert difference.value == 0.0
    assert difference.interval.method == "exact"
    # Clopper and Pearson: what may be with 2.5 % of a chance and was never seen in 40.
    assert difference.interval.high == -difference.interval.low == pytest.approx(1 - 0.025 ** (1 / 40))


def test_what_is_undefined_says_so_and_without_a_teacher_there_is_no_difference() -> None:
    nothing = Measured(ACCURACY, np.zeros((8, 2)))
    made = found(INSTRUMENT, nothing, model="kd", method="kd")
    assert made.unknown == "it is undefined on these 8 rows" and math.isnan(made.value.value)
    alone = found(INSTRUMENT, hits([1.0, 0.0] * 10), model="kd", method="kd")
    assert alone.teacher is None and alone.difference is None and alone.unknown is None


def test_other_rows_cannot_be_compared_in_pairs() -> None:
    with pytest.raises(ValueError, match="8 rows cannot be compared, in pairs, with 9"):
        paired_difference(hits([1.0] * 9), hits([1.0] * 8))


def _width(difference: object) -> float:
    return difference.interval.high - difference.interval.low  # type: ignore[attr-defined]
