"""Ratios are taken round by round, and only between what was measured side by side."""

from __future__ import annotations

import math
from dataclasses import replace

from results_builders import model_results, text_serving

from evaluation.results import Spread
from evaluation.serving import text_batches, text_speed, times_faster, times_smaller

TEACHER = model_results("teacher", disk_bytes=1000, serving=text_serving({1: (10.0, 40.0, 12.0), 32: (2.0, 2.0, 2.0)}))
STUDENT = model_results("bag", disk_bytes=100, serving=text_serving({1: (1.0, 2.0, 2.0)}))


def test_a_ratio_is_of_one_round() -> None:
    # 10, 20 and 6 times; of the medians it would be 6.
    assert times_faster(STUDENT, TEACHER, batch=1) == Spread(10.0, 6.0, 20.0, 3)


def test_what_was_not_measured_side_by_side_has_no_ratio() -> None:
    assert times_faster(STUDENT, TEACHER, batch=32) is None
    assert times_faster(replace(STUDENT, serving=None), TEACHER, batch=1) is None
    assert STUDENT.serving is not None
    elsewhere = replace(STUDENT, serving=replace(STUDENT.serving, measured_on="another machine"))
    assert times_faster(elsewhere, TEACHER, batch=1) is None
    shorter = replace(STUDENT, serving=text_serving({1: (1.0, 2.0)}))
    assert times_faster(shorter, TEACHER, batch=1) is None


def test_batches_and_bytes() -> None:
    assert text_batches(TEACHER) == (1, 32) and text_batches(replace(TEACHER, serving=None)) == ()
    speed = text_speed(TEACHER, 1)
    assert speed is not None and speed.spread == Spread(12.0, 10.0, 40.0, 3)
    assert times_smaller(STUDENT, TEACHER) == 10.0
    assert math.isnan(times_smaller(replace(STUDENT, disk_bytes=0), TEACHER))
