"""What a person sees of an audit: every number with its interval, and why others are missing."""

from __future__ import annotations

import io
from dataclasses import replace

from evaluation.side_effects.findings import Audit, Finding, unknown
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval
from orchestration.audits.tables import show_audit
from orchestration.outputs.console import Console


def test_numbers_intervals_reasons_and_notes_are_shown() -> None:
    value = Estimate(0.61, Interval(0.52, 0.7, "bca", 0.0), 80)
    teacher = replace(value, value=0.408)
    apart = Estimate(0.202, Interval(0.1, 0.3, "percentile", 0.0), 80)
    found = Finding("privacy", "loss", "kd", "kd", value, teacher, None, apart, "fraction", "50 % is a guess", None)
    missing = unknown(
        audit="privacy", instrument="zlib", model="kd", method="kd", unit="fraction", meaning="m", why="no rows"
    )
    stream = io.StringIO()
    show_audit(Audit("privacy", {}, (found, missing), ("all is well",)), Console(stream))
    text = stream.getvalue()
    assert "privacy: kd (kd)" in text
    for part in ("61.0 %", "52.0 to 70.0 %", "40.8 %", "+20.2 pp", "+10.0 to +30.0 pp"):
        assert part in text
    assert "kd: not known: zlib: no rows" in text
    # What was not measured needs no key.
    assert "zlib: m." not in text
    assert "loss: 50 % is a guess." in text and "Note: all is well." in text
