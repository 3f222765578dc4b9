"""Charts as SVG for a page: text stays text, colours are the page's, and equal data give equal bytes.

Matplotlib draws with placeholder colours, which become CSS variables (`var(--series-1)`), so that a chart follows the
page into a dark theme and onto paper. What a model is called is never given to matplotlib: it would lay out and parse
it; a label travels as a number and is put in as escaped text at the end. Every series has a colour, a dash and a
marker of its own, so that none depends on colour alone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from evaluation.report.numbers import Number, Unit, written

SIZE = (4.2, 2.9)
"""Inches of a chart; the page shows it at 72 or more points an inch, so that three stand side by side."""

SERIES = 8
"""Colours that the page has for models; more of them begin again, with another dash."""

DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")

_SHAPES = (
    '<circle cx="14" cy="6" r="3.5"/>',
    '<path d="M10.8 2.8h6.4v6.4h-6.4z"/>',
    '<path d="M14 1.6 18.4 6 14 10.4 9.6 6z"/>',
    '<path d="M14 2 18 9.5h-8z"/>',
    '<path d="M14 10 18 2.5h-8z"/>',
    '<path d="M12.7 2h2.6v2.7H18v2.6h-2.7V10h-2.6V7.3H10V4.7h2.7z"/>',
    '<path d="M10.5 4.4 12.4 2.5 14 4.1l1.6-1.6 1.9 1.9L15.9 6l1.6 1.6-1.9 1.9L14 7.9l-1.6 1.6-1.9-1.9L12.1 6z"/>',
    '<path d="M10 6 17.5 2v8z"/>',
)
"""`MARKERS` for the legend, around (14, 6)."""

_DASH_ARRAYS = ("", "5 3", "7 2 2 2", "1.5 2.5")
"""`DASHES` for the legend."""

LABEL_GAP = 11.0
"""Points of height that a label takes."""

_LEFT_OUT = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)

_INK, _MUTED, _GRID = "#000101", "#000102", "#000103"
_PLACEHOLDERS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--line)"} | {
    f"#0002{number:02x}": f"var(--series-{number})" for number in range(SERIES)
}

_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
}


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart. `number` is the model's on the page, which gives colour, marker and, unless set, dash."""

    label: str
    number: int
    x: Sequence[Number]
    y: Sequence[Number]
    dash: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A model in a plot of quality against cost; `low` and `high` bound its 95 % interval (NaN: none)."""

    label: str
    number: int
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Words:
    """What a chart is called, says to whom it is read out, and has at its axes. `key` is unique on a page."""

    key: str
    title: str
    description: str
    x: str
    y: str
    x_unit: Unit | None = None
    y_unit: Unit | None = None


def line_chart(series: Sequence[Series], words: Words) -> Markup:
    """Lines over a common axis; what is not finite is left out."""
    with _styled(words.key):
        figure, axes = _empty(words)
        for each in series:
            pairs = [(x, y) for x, y in zip(each.x, each.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
            axes.plot(
                [x for x, _ in pairs],
                [y for _, y in pairs],
                color=colour(each.number),
                linestyle=each.dash or DASHES[each.number % len(DASHES)],
                marker=MARKERS[each.number % len(MARKERS)] if len(pairs) <= 12 else None,
            )
        return _svg(figure, words, labels=())


def reliability_chart(series: Series, shares: Sequence[Number], words: Words) -> Markup:
    """How often it was right (y) over how sure it was (x), with bars for the share of tokens in each bin."""
    with _styled(words.key):
        figure, axes = _empty(words)
        axes.bar(series.x, shares, width=0.9 / max(len(series.x), 1), color=_GRID)
        axes.plot((0, 1), (0, 1), color=_MUTED, linestyle=":", linewidth=1.0)
        kept = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(y)]
        shape = MARKERS[series.number % len(MARKERS)]
        axes.plot([x for x, _ in kept], [y for _, y in kept], color=colour(series.number), marker=shape)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        return _svg(figure, words, labels=())


def pareto_chart(points: Sequence[Point], words: Words, *, higher_is_better: bool) -> Markup:
    """Quality (y, better is up) against cost (x, logarithmic), and a line along those that nobody beats in both."""
    with _styled(words.key):
        figure, axes = _empty(words)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _name_ticks(axes, words)
        steps = front(points, higher_is_better=higher_is_better)
        axes.step([p.x for p in steps], [p.y for p in steps], where="post", color=_MUTED, linewidth=1.0)
        for point in points:
            _draw_point(axes, point)
        axes.margins(x=0.12, y=0.14)
        if not higher_is_better:
            axes.invert_yaxis()
        figure.draw_without_rendering()  # where the points lie is known only now
        _label_points(axes, points)
        return _svg(figure, words, labels=[point.label for point in points])


def front(points: Sequence[Point], *, higher_is_better: bool) -> list[Point]:
    """Those that nobody beats: cheapest first, each better than all that cost less."""
    best: list[Point] = []
    sign = 1.0 if higher_is_better else -1.0
    for point in sorted(points, key=lambda point: (point.x, -sign * point.y)):
        if not best or sign * point.y > sign * best[-1].y:
            best.append(point)
    return best


def legend_key(number: int) -> Markup:
    """The line and the marker of a model, for a legend; it stands beside the name and is hidden from readers aloud."""
    dashes, shape = _DASH_ARRAYS[number % len(DASHES)], _SHAPES[number % len(MARKERS)]
    return Markup(
        f'<svg class="key" viewBox="0 0 28 12" width="28" height="12" aria-hidden="true" style="color: '
        f'var(--series-{number % SERIES})"><path d="M0 6h28" stroke="currentColor" stroke-width="1.6" '
        f'stroke-dasharray="{dashes}" fill="none"/><g fill="currentColor">{shape}</g></svg>'
    )


def colour(number: int) -> str:
    """The placeholder of a model's colour."""
    return f"#0002{number % SERIES:02x}"


def _styled(key: str) -> AbstractContextManager[None]:
    """Matplotlib's defaults and ours, whatever a user's own settings say; `key` makes the ids of the elements."""
    # Its types want a literal for every key.
    return mpl.rc_context(cast(Any, {**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": key}))


def _empty(words: Words) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(words.x)
    axes.set_ylabel(words.y)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _name_ticks(axes, words)
    return figure, axes


def _name_ticks(axes: Axes, words: Words) -> None:
    for axis, unit in ((axes.xaxis, words.x_unit), (axes.yaxis, words.y_unit)):
        if unit is not None:
            axis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: _tick(value, unit)))


def _tick(value: float, unit: Unit) -> str:
    if unit == "fraction":
        return f"{100 * value:.3g} %"
    return written(value, unit).replace(".00 ", " ").replace(".0 ", " ") if unit != "nats" else f"{value:.3g}"


def _draw_point(axes: Axes, point: Point) -> None:
    if math.isfinite(point.low) and math.isfinite(point.high):
        axes.plot((point.x, point.x), (point.low, point.high), color=colour(point.number), linewidth=1.0)
    shape = MARKERS[point.number % len(MARKERS)]
    axes.plot(point.x, point.y, color=colour(point.number), marker=shape, markersize=7, linestyle="none")


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """A name beside each point, towards the middle; names that would lie on each other are moved apart."""
    frame = axes.get_window_extent()
    places = [axes.transData.transform((point.x, point.y)) for point in points]
    scale = 72.0 / axes.figure.dpi
    for leftwards in (False, True):
        side = [i for i, (x, _) in enumerate(places) if (x > frame.x0 + frame.width / 2) == leftwards]
        lowest = -math.inf
        for index in sorted(side, key=lambda i: float(places[i][1])):
            height = max(float(places[index][1]) * scale + 3.0, lowest + LABEL_GAP)
            lowest = height
            axes.annotate(
                f"@{index}@",
                (points[index].x, points[index].y),
                xytext=(-8 if leftwards else 8, height - float(places[index][1]) * scale),
                textcoords="offset points",
                ha="right" if leftwards else "left",
                size=8.5,
                annotation_clip=False,
            ).set_in_layout(False)


def _svg(figure: Figure, words: Words, *, labels: Sequence[str]) -> Markup:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = text[text.index(">") + 1 :]
    # A rule for every element would be one for the whole page; comments hold what was drawn once more.
    text = _LEFT_OUT.sub("", text)
    for placeholder, variable in _PLACEHOLDERS.items():
        text = text.replace(placeholder, variable)
    # Several charts stand on one page: every id is made its own.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{words.key}-", text)
    text = re.sub(r"font: ([\d.]+)px 'DejaVu Sans'[^;\"]*", r"font-size: \1px", text)
    text = text.replace("; font-family: 'DejaVu Sans'", "")
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = re.sub(r"@(\d+)@", lambda found: str(escape(labels[int(found[1])])), text)
    head = (
        f'<svg role="img" aria-labelledby="{words.key}-title {words.key}-desc" class="chart" '
        f'viewBox="0 0 {SIZE[0] * 72:g} {SIZE[1] * 72:g}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{words.key}-title">{escape(words.title)}</title>'
        f'<desc id="{words.key}-desc">{escape(words.description)}</desc>'
    )
    return Markup(head + text.strip())
