from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from evaluation.report.charts import (
    DASHES,
    MARKERS,
    SERIES,
    Point,
    Series,
    Words,
    front,
    legend_key,
    line_chart,
    pareto_chart,
    reliability_chart,
)

ROOT = Path(__file__).resolve().parents[4]
WORDS = Words("key", "Title & <b>more</b>", "What it shows.", "x axis", "y axis")
SVG = "{http://www.w3.org/2000/svg}"


def points(*labels: str) -> list[Point]:
    return [
        Point(label, place, 10.0 ** (place + 1), 0.5 + 0.1 * place, math.nan, math.nan)
        for place, label in enumerate(labels)
    ]


def texts(svg: str) -> list[str]:
    return [text for found in ET.fromstring(svg).iter(f"{SVG}text") if (text := "".join(found.itertext()).strip())]


def test_a_chart_has_a_role_a_title_and_a_description() -> None:
    root = ET.fromstring(line_chart([Series("kd", 2, [0, 1], [1, 0])], WORDS))
    assert root.get("role") == "img"
    told = {found.get("id"): found.text for found in root if found.tag in (f"{SVG}title", f"{SVG}desc")}
    assert [told[name] for name in str(root.get("aria-labelledby")).split()] == [WORDS.title, WORDS.description]


def test_its_colours_are_those_of_the_page() -> None:
    svg = pareto_chart(points(*"abcdefgh"), WORDS, higher_is_better=True)
    assert {f"var(--series-{number})" for number in range(SERIES)} <= set(re.findall(r"var\(--[\w-]+\)", svg))
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    assert "<style" not in svg
    assert "DejaVu" not in svg


def test_ids_of_two_charts_do_not_meet() -> None:
    series = [Series("kd", 2, [0, 1], [1, 0])]
    found = [
        set(re.findall(r'\bid="([^"]+)"', line_chart(series, Words(key, "t", "d", "x", "y")))) for key in ("one", "two")
    ]
    assert found[0] and not found[0] & found[1]


def test_what_is_referred_to_is_there() -> None:
    svg = pareto_chart(points("a", "b"), WORDS, higher_is_better=True)
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)) != set()
    assert {one or other for one, other in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)} <= set(ids)


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "$x^2$ \\frac", "@0@ @1@", "学生", "a_b{c}"])
def test_a_label_is_text_whatever_it_holds(label: str) -> None:
    assert label in texts(pareto_chart(points(label, "other"), WORDS, higher_is_better=True))


def test_what_is_not_finite_is_left_out() -> None:
    series = [Series("kd", 2, [0, 1, 2, 3], [1.0, math.nan, math.inf, 0.0])]
    assert "nan" not in line_chart(series, WORDS)
    assert "nan" not in reliability_chart(Series("kd", 2, [0.25, 0.75], [math.nan, 0.5]), [0.4, 0.6], WORDS)


def test_the_front_is_of_those_that_nobody_beats() -> None:
    def point(label: str, x: int, y: float) -> Point:
        return Point(label, 0, float(x), y, math.nan, math.nan)

    models = [
        point("dear", 9, 0.9),
        point("cheap", 1, 0.5),
        point("beaten", 2, 0.4),
        point("twin", 1, 0.45),
        point("good", 3, 0.8),
    ]
    assert [each.label for each in front(models, higher_is_better=True)] == ["cheap", "good", "dear"]
    assert [each.label for each in front(models, higher_is_better=False)] == ["twin", "beaten"]


def test_labels_do_not_lie_on_each_other() -> None:
    crowd = [Point(f"model-{place}", place, 1.0 + place / 1000, 0.5, math.nan, math.nan) for place in range(5)]
    svg = pareto_chart([*crowd, Point("teacher", 5, 100.0, 0.9, math.nan, math.nan)], WORDS, higher_is_better=True)
    heights = sorted(
        float(str(found.get("y")))
        for found in ET.fromstring(svg).iter(f"{SVG}text")
        if "".join(found.itertext()).strip().startswith("model-")
    )
    assert len(heights) == 5
    assert min(b - a for a, b in pairwise(heights)) > 9.0


def test_no_two_of_the_first_models_look_alike_without_colour() -> None:
    assert len({(number % len(DASHES), number % len(MARKERS)) for number in range(SERIES)}) == SERIES
    keys = {re.sub(r"series-\d", "", legend_key(number)) for number in range(SERIES)}
    assert len(keys) == SERIES


def test_a_users_own_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    plain = line_chart([Series("kd", 2, [0, 1], [1, 0])], WORDS)
    with mpl.rc_context({"axes.facecolor": "red", "lines.linewidth": 9.0}):
        assert line_chart([Series("kd", 2, [0, 1], [1, 0])], WORDS) == plain


def test_another_process_draws_the_same_bytes() -> None:
    code = (
        "from evaluation.report.charts import *; import math, sys; "
        "sys.stdout.write(pareto_chart([Point('a', 0, 1.0, 0.5, 0.4, 0.6), Point('b', 2, 5.0, 0.7, math.nan, math.nan)], "
        "Words('key', 't', 'd', 'x', 'y', 'bytes', 'fraction'), higher_is_better=True))"
    )
    drawn = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert drawn[0].startswith("<svg") and drawn[0] == drawn[1]
