"""A finding has a number or a reason for having none, and an audit holds each of its numbers once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.side_effects.findings import NOT_MEASURED, Audit, Contrast, Finding, unknown
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval

AUC = Estimate(0.61, Interval(0.52, 0.7, "bca", 0.0), 80)

FINDING = Finding("privacy", "membership: loss", "kd", "kd", AUC, AUC, None, AUC, "fraction", "0.5 is a guess", None)


def test_what_was_not_measured_says_why_and_has_no_number() -> None:
    found = unknown(
        audit="privacy",
        instrument="overlap",
        model="kd",
        method="kd",
        unit="fraction",
        meaning="m",
        why="no held-out rows",
    )
    assert found.unknown == "no held-out rows"
    assert math.isnan(found.value.value) and found.value is NOT_MEASURED
    Audit("privacy", {}, (FINDING, found), ())


def test_a_number_that_is_none_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="neither a number nor a reason"):
        Audit("privacy", {}, (replace(FINDING, value=NOT_MEASURED),), ())


def test_one_instrument_has_one_number_of_a_model() -> None:
    with pytest.raises(ValueError, match="two findings"):
        Audit("privacy", {}, (FINDING, FINDING), ())
    Audit("privacy", {}, (FINDING, replace(FINDING, model="teacher")), ())


def test_a_finding_of_another_audit_is_refused() -> None:
    with pytest.raises(ValueError, match="of the audit privacy, not bias"):
        Audit("bias", {}, (FINDING,), ())


def test_an_audit_says_in_a_line_how_much_it_found() -> None:
    sure = Estimate(0.2, Interval(0.1, 0.3, "bca", 0.0), 80)
    found = Finding("bias", "seen", "kd", "kd", sure, sure, None, sure, "fraction", "it is", None)
    missing = unknown(
        audit="bias", instrument="other", model="kd", method="kd", unit="nats", meaning="m", why="no rows"
    )
    beside = Contrast("seen", "kd", "kd", "seqkd", "seqkd", sure, sure, sure, "fraction")
    assert Audit("bias", {}, (found, missing), (), (beside,)).in_words == (
        "1 numbers, apart from the teacher's: 1 of kd; between students 1 of 1 differ; 1 not known"
    )
    assert Audit("bias", {}, (missing,), ()).in_words == "nothing was measured; 1 not known"
