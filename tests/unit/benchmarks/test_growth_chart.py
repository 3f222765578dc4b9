"""The chart: a panel for each thing that costs are drawn against; equal costs give equal bytes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.growth_chart import Line, draw_growth, short

LINES = (
    Line("reading", "rows in the cache", "flat", (100_000, 1_000_000), (0.005, 0.0051)),
    Line("reading", "K", "linear", (8, 64), (0.001, 0.002)),
    Line("head and loss", "K", "flat", (8, 64), (0.1, 0.1)),
)


def test_every_line_and_axis_has_its_words(tmp_path: Path) -> None:
    draw_growth(LINES, tmp_path / "growth.svg")
    root = ElementTree.parse(tmp_path / "growth.svg").getroot()
    words = ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("rows in the cache") == words.count("K") == 1
    assert words.count("reading") == 2 and words.count("head and loss") == 1
    assert words.count("flat") == 2 and words.count("linear") == 1
    assert {"100k", "1M", "8", "64"} <= set(words)


def test_equal_costs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_growth(LINES, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("size", "shown"), [(8, "8"), (16_384, "16k"), (300_000, "300k"), (3_000_000, "3M")])
def test_sizes_are_short(size: int, shown: str) -> None:
    assert short(size) == shown
