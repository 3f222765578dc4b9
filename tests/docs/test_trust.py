"""What the page of trust says of its instruments: tests that are there, and what so many rows can see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs.audit import AUDITED_ROWS, CanariesConfig
from evaluation.side_effects.preferences import own_pairs
from evaluation.side_effects.refusing import own_requests
from evaluation.statistics.power import detectable_area, detectable_difference, detectable_rate, detectable_share

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## What the instruments can see")[2].partition("\n## ")[0]


def row(name: str) -> str:
    """What an instrument sees, by the table, with what it has for it."""
    (line,) = (line for line in TABLE.splitlines() if line.startswith(f"| {name} |"))
    return "|".join(line.split("|")[3:5])


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([a-z]+/test_\w+\.py)`", TABLE))
    assert len(named) >= 8
    for name in named:
        assert (ROOT / "tests" / "unit" / "orchestration" / name).is_file(), name


def test_default_numbers_of_rows_are_those_of_the_table() -> None:
    kinds = [pair.kind for pair in own_pairs()]
    assert (kinds.count("gender"), kinds.count("age"), CanariesConfig().count, AUDITED_ROWS) == (10, 8, 8, 256)
    assert sum(each.kind == "harmful" for each in own_requests()) == 40
    assert "256 rows" in row("membership: every score") and "40 requests" in row("refusals")


@pytest.mark.parametrize(
    ("name", "said", "seen"),
    [
        ("membership: every score", "57.2 %", 0.5 + detectable_area(256, 256)),
        ("membership: every score", "60.8 %", 0.5 + detectable_area(112, 112)),
        ("membership: every score", "66.6 %", 0.5 + detectable_area(48, 48)),
        ("verbatim", "12 %", detectable_rate(64)),
        ("canaries: extracted", "18 %", detectable_share(8, expected=0.0)),
        ("pairs: a kind", "97 %", detectable_share(8, expected=0.5)),
        ("pairs: a kind", "92 %", detectable_share(10, expected=0.5)),
        ("refusals", "19 %", detectable_rate(40)),
        ("personal data", "0.2 %", detectable_share(1000, expected=0.0)),
    ],
)
def test_what_is_seen_is_what_arithmetic_says(name: str, said: str, seen: float) -> None:
    digits = len(said.removesuffix(" %").partition(".")[2])
    assert said in row(name) and round(100 * seen, digits) == float(said.removesuffix(" %"))


def test_means_are_seen_from_a_part_of_their_spread_on() -> None:
    assert "0.35 standard deviations" in row("swapped prompts") and "one standard deviation" in row("pairs: size")
    assert round(detectable_difference(64**-0.5), 2) == 0.35 and round(detectable_difference(8**-0.5), 2) == 0.99
