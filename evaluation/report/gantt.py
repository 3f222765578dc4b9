"""A run's timeline as a chart: a row for what ran, a bar from its beginning to its end, a colour for what it ran on.

Rows come in the order of their beginnings, so that a run goes down like a staircase, and what ran beside something else
is seen beside it. Where something began when another thing had ended, a thin line leads there: it had waited for that.
A run that was stopped and went on is drawn as one; where the pauses were, there are dashed lines.

It is SVG written by hand, because the space that names and times take has to be known: a letter counts with its average
width, a name is cut to its column, and a time stands behind its bar, before it or inside it, wherever there is room.
Colours are the page's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from configs.visible_text import visible
from evaluation.report.charts import Words
from evaluation.report.numbers import clock
from evaluation.results import PLACES, Place, Span

WIDTH = 800.0
"""Units of the drawing; it is made to be read where one is one pixel."""

NAMES, RIGHT = 176.0, 14.0
"""Of the width: the column of the names, and what is left free at the right."""

TOP, ROW, BAR, FOOT = 34.0, 21.0, 11.0, 34.0
"""Of the height: the times above, a row, its bar, and the key below."""

LETTER = 6.1
"""The width of a letter of eleven units, on the average of names and times in the fonts of the page."""

PAUSE = 18.0
"""The width of a pause between two starts, however long it was."""

LEAST = 1.5
"""The width of a bar of something that was over at once."""

MOST_ROWS = 40
"""More would not be read; the shortest are left out, and the caption says so."""

COLOURS: dict[Place, str] = {
    "driver": "var(--series-1)",
    "cluster": "var(--series-7)",
    "teacher": "var(--series-2)",
    "workers": "var(--series-4)",
    "student": "var(--series-3)",
}
CALLED: dict[Place, str] = {
    "driver": "this program",
    "cluster": "Ray",
    "teacher": "the teacher's engines",
    "workers": "worker groups",
    "student": "engines of students",
}

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
"""Between two times at the top; beyond a day, whole days."""

MOST_TIMES = 9


@dataclass(frozen=True, slots=True)
class Lane:
    """A row: what has one name on one place, once or several times."""

    title: str
    place: Place
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """Of all its bars."""
        return sum(span.ended - span.began for span in self.spans)


def took(seconds: float) -> str:
    """A duration: `< 1 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if round(seconds) < 60:
        return f"{max(round(seconds), 1)} s" if seconds >= 0.5 else "< 1 s"
    return clock(seconds)


def lanes_of(spans: Sequence[Span]) -> list[Lane]:
    """Rows in the order of their beginnings."""
    found: dict[tuple[str, Place], list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.start, span.began, span.ended)):
        found.setdefault((span.title, span.place), []).append(span)
    return [Lane(title, place, tuple(each)) for (title, place), each in found.items()]


def shown_lanes(spans: Sequence[Span]) -> tuple[list[Lane], int]:
    """The rows of a chart, and how many of the shortest it leaves out."""
    lanes = lanes_of(spans)
    longest = sorted(lanes, key=lambda lane: -lane.seconds)[:MOST_ROWS]
    return [lane for lane in lanes if lane in longest], len(lanes) - len(longest)


def gantt(spans: Sequence[Span], words: Words) -> Markup:
    """The chart; there has to be a span."""
    lanes, _ = shown_lanes(spans)
    scale = _Scale.of(spans)
    height = TOP + ROW * len(lanes) + FOOT
    parts = [
        f'<svg role="img" aria-labelledby="{words.key}-title {words.key}-desc" class="chart wide" '
        f'viewBox="0 0 {WIDTH:g} {height:g}" xmlns="http://www.w3.org/2000/svg" font-size="11">'
        f'<title id="{words.key}-title">{escape(words.title)}</title>'
        f'<desc id="{words.key}-desc">{escape(words.description)}</desc>',
        *_times(scale, bottom=TOP + ROW * len(lanes)),
        *_waits(lanes, scale),
    ]
    for row, lane in enumerate(lanes):
        parts += _lane(lane, scale, middle=TOP + ROW * (row + 0.5))
    parts += _key(lanes, top=height - FOOT)
    return Markup("\n".join([*parts, "</svg>"]))


@dataclass(frozen=True, slots=True)
class _Scale:
    """From times to places of the drawing. `begins` are those of each start, with the seconds of those before it."""

    begins: dict[int, tuple[float, float]]
    ends: dict[int, float]
    unit: float

    @classmethod
    def of(cls, spans: Sequence[Span]) -> _Scale:
        begins: dict[int, tuple[float, float]] = {}
        ends: dict[int, float] = {}
        before = 0.0
        for start in sorted({span.start for span in spans}):
            own = [span for span in spans if span.start == start]
            begins[start] = (min(span.began for span in own), before)
            ends[start] = max(span.ended for span in own)
            before += ends[start] - begins[start][0]
        room = WIDTH - NAMES - RIGHT - PAUSE * (len(begins) - 1)
        return cls(begins, ends, max(room, WIDTH / 8) / max(before, 1e-3))

    @property
    def seconds(self) -> float:
        """Of all starts together, without the pauses."""
        return sum(self.ends[start] - began for start, (began, _) in self.begins.items())

    def x(self, moment: float, *, start: int) -> float:
        began, before = self.begins[start]
        number = list(self.begins).index(start)
        return NAMES + (before + moment - began) * self.unit + PAUSE * number


def _times(scale: _Scale, *, bottom: float) -> list[str]:
    """Lines and times at the top, from the beginning on, and a dashed line where a run was stopped."""
    step = next((each for each in STEPS_S if scale.seconds / each <= MOST_TIMES), 0)
    step = step or 86400 * max(1, round(scale.seconds / 86400 / MOST_TIMES))
    parts, free, said_until = [], 0.0, NAMES
    for start, (began, before) in scale.begins.items():
        number = list(scale.begins).index(start)
        if number:
            x = scale.x(began, start=start) - PAUSE / 2
            parts.append(
                f'<path d="M{x:.1f} {TOP - 4:g}V{bottom:g}" stroke="var(--muted)" stroke-width="1" '
                'stroke-dasharray="3 3"/>'
            )
            said = f"went on after {took(began - scale.ends[list(scale.begins)[number - 1]])}"
            if x - 4 - len(said) * LETTER > said_until:
                parts.append(_text(x - 4, TOP - 21, said, anchor="end", fill="var(--muted)"))
                said_until = x
        at = step * -(-before // step)
        while at <= before + scale.ends[start] - began:
            x = scale.x(began + at - before, start=start)
            parts.append(f'<path d="M{x:.1f} {TOP - 4:g}V{bottom:g}" stroke="var(--line)" stroke-width="1"/>')
            said = _time(at)
            half = len(said) * LETTER / 2
            if x - half > free and x + half <= WIDTH:
                parts.append(_text(x, TOP - 9, said, anchor="middle", fill="var(--muted)"))
                free = x + half + 8
            at += step
    return parts


def _time(seconds: float) -> str:
    return "0" if seconds == 0 else took(seconds).removesuffix(" 00 s").removesuffix(" 00 min")


def _waits(lanes: Sequence[Lane], scale: _Scale) -> list[str]:
    """From the end of something to the nearest row below that began then."""
    close = max(0.5, 0.006 * scale.seconds)
    parts = []
    for row, lane in enumerate(lanes):
        for span in lane.spans:
            for below, other in enumerate(lanes[row + 1 :], row + 1):
                next_ones = [
                    each
                    for each in other.spans
                    if each.start == span.start and abs(each.began - span.ended) <= close and each.ended > span.ended
                ]
                if next_ones:
                    end, begin = (scale.x(span.ended, start=span.start), scale.x(next_ones[0].began, start=span.start))
                    y, to = TOP + ROW * (row + 0.5), TOP + ROW * (below + 0.5) - BAR / 2
                    parts.append(
                        f'<path d="M{end:.1f} {y:g}H{max(end, begin):.1f}V{to:g}" fill="none" stroke="var(--muted)" '
                        'stroke-width="0.8" opacity="0.7"/>'
                    )
                    break
    return parts


def _lane(lane: Lane, scale: _Scale, *, middle: float) -> list[str]:
    name = visible(lane.title)
    most = int((NAMES - 12) / LETTER)
    shown = name if len(name) <= most else f"{name[: most - 1]}…"
    parts = [_text(NAMES - 10, middle + 4, shown, anchor="end", fill="var(--ink)")]
    right = 0.0
    for span in lane.spans:
        long = took(span.ended - span.began)
        left = scale.x(span.began, start=span.start)
        right = max(left + LEAST, scale.x(span.ended, start=span.start))
        parts.append(
            f'<rect x="{left:.1f}" y="{middle - BAR / 2:g}" width="{right - left:.1f}" height="{BAR:g}" rx="2" '
            f'fill="{COLOURS[lane.place]}"><title>{escape(name)}: {escape(long)}</title></rect>'
        )
    said = took(lane.seconds)
    wide = len(said) * LETTER
    first = scale.x(lane.spans[0].began, start=lane.spans[0].start)
    if right + 5 + wide <= WIDTH:
        parts.append(_haloed(right + 5, middle + 4, said, anchor="start"))
    elif first - 5 - wide >= NAMES:
        parts.append(_haloed(first - 5, middle + 4, said, anchor="end"))
    elif len(lane.spans) == 1:
        parts.append(_text(right - 5, middle + 4, said, anchor="end", fill="var(--paper)"))
    else:
        parts.append(_haloed(right - 5, middle + 4, said, anchor="end"))
    return parts


def _key(lanes: Sequence[Lane], *, top: float) -> list[str]:
    """What the colours mean, of the places that occur."""
    parts, x = [], NAMES
    for place in (each for each in PLACES if any(lane.place == each for lane in lanes)):
        parts.append(f'<rect x="{x:.1f}" y="{top + 13:g}" width="11" height="11" rx="2" fill="{COLOURS[place]}"/>')
        parts.append(_text(x + 16, top + 22.5, CALLED[place], anchor="start", fill="var(--ink)"))
        x += 16 + len(CALLED[place]) * LETTER + 14
    return parts


def _text(x: float, y: float, said: str, *, anchor: str, fill: str) -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" fill="{fill}">{escape(said)}</text>'


def _haloed(x: float, y: float, said: str, *, anchor: str) -> str:
    """A time over the lines of the chart, which end around it."""
    return (
        f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" fill="var(--muted)" stroke="var(--paper)" '
        f'stroke-width="4" paint-order="stroke">{escape(said)}</text>'
    )
