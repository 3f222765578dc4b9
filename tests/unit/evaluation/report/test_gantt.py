"""The chart of a timeline: every row, bar and time has its place, whatever ran; names are text and never markup."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.report.charts import Words
from evaluation.report.gantt import LETTER, MOST_ROWS, NAMES, WIDTH, gantt, lanes_of, shown_lanes, took
from evaluation.results import PLACES, Span

WORDS = Words("key", "title", "description", "", "")
SVG = "{http://www.w3.org/2000/svg}"

spans = st.lists(
    st.builds(
        lambda title, place, start, began, seconds: Span(
            title, place, start, 1e9 + 1e6 * start + began, 1e9 + 1e6 * start + began + seconds
        ),
        st.text(min_size=1, max_size=40),
        st.sampled_from(PLACES),
        st.integers(0, 3),
        st.floats(0, 1e5),
        st.floats(0, 1e5),
    ),
    min_size=1,
    max_size=30,
)


def drawn(*ran: Span) -> ElementTree.Element:
    return ElementTree.fromstring(str(gantt(ran, WORDS)))


def texts(chart: ElementTree.Element) -> list[ElementTree.Element]:
    return chart.findall(f"{SVG}text")


def box(text: ElementTree.Element) -> tuple[float, float, float]:
    """Left and right as the chart thinks of them, and the base line."""
    wide, x = len(text.text or "") * LETTER, float(text.get("x", "0"))
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[text.get("text-anchor", "")]
    return left, left + wide, float(text.get("y", "0"))


@given(spans)
def test_whatever_ran_stays_in_the_chart_and_no_text_lies_on_another(ran: list[Span]) -> None:
    chart = drawn(*ran)
    bars = [rect for rect in chart.findall(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(bars) == sum(len(lane.spans) for lane in shown_lanes(ran)[0])
    for bar in bars:
        left, wide = float(bar.get("x", "")), float(bar.get("width", ""))
        assert left >= NAMES - 0.1 and wide > 0 and left + wide <= WIDTH + 0.1
    boxes = sorted(map(box, texts(chart)), key=lambda each: (each[2], each[0]))
    for (_, right, y), (left, _, below) in pairwise(boxes):
        assert y != below or right <= left + 0.1
    assert all(right <= WIDTH + 0.1 for _, right, _ in boxes)


@given(spans)
def test_equal_spans_give_equal_bytes_in_any_order(ran: list[Span]) -> None:
    assert gantt(ran, WORDS) == gantt(list(reversed(ran)), WORDS) or len(
        {(s.start, s.began, s.ended) for s in ran}
    ) < len(ran)


def test_a_name_is_text_and_cut_to_its_column() -> None:
    chart = drawn(Span('<script>alert("x")</script> of a very long name\u202e', "driver", 0, 1.0, 2.0))
    names = [text.text or "" for text in texts(chart)]
    assert any(name.startswith('<script>alert("x")') and name.endswith("…") for name in names)
    assert "<script" not in str(gantt([Span("<script>", "driver", 0, 1.0, 2.0)], WORDS))


def test_what_ran_again_has_one_row_and_what_waited_has_a_line() -> None:
    ran = [
        Span("fill", "teacher", 0, 0.0, 100.0),
        Span("train", "workers", 0, 100.0, 150.0),
        Span("train", "workers", 1, 900.0, 950.0),
        Span("report", "driver", 1, 970.0, 971.0),
    ]
    assert [lane.title for lane in lanes_of(ran)] == ["fill", "train", "report"]
    assert lanes_of(ran)[1].seconds == 100.0
    waits = [path.get("d", "") for path in drawn(*ran).findall(f"{SVG}path") if path.get("opacity")]
    assert len(waits) == 1, "the report began twenty seconds after what ended before it"
    dashed = [path for path in drawn(*ran).findall(f"{SVG}path") if path.get("stroke-dasharray")]
    said = [text.text for text in texts(drawn(*ran))]
    assert len(dashed) == 1 and "went on after 12 min 30 s" in said


def test_of_very_many_rows_the_longest_are_drawn() -> None:
    ran = [Span(f"stage {at}", "workers", 0, float(at), at + 1.0 + at / 100) for at in range(MOST_ROWS + 5)]
    lanes, left_out = shown_lanes(ran)
    assert len(lanes) == MOST_ROWS and left_out == 5 and lanes[0].title == "stage 5"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "< 1 s"), (0.49, "< 1 s"), (0.5, "1 s"), (59.4, "59 s"), (60.0, "1 min 00 s"), (7260.0, "2 h 01 min")],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert took(seconds) == said


def test_times_at_the_top_do_not_crowd() -> None:
    for seconds in (0.001, 3, 59, 600, 5000, 86400, 3e7):
        chart = drawn(Span("all", "driver", 0, 0.0, float(seconds)))
        top = [text for text in texts(chart) if text.get("text-anchor") == "middle"]
        assert 1 <= len(top) <= 11 and re.match("0", top[0].text or "")
