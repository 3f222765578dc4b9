"""The chart of `benchmarks.growth`: a panel for what costs are drawn against, with the shape that each should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

PANEL = (3.4, 2.9)
"""Inches."""

COLOURS = ("#3465a4", "#c17d11")
MARKERS = ("o", "s")
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.family": ["DejaVu Sans"], "font.size": 8.0}


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a part of a step at each size of what it is drawn against, and the shape that it should have."""

    name: str
    against: str
    shape: str
    sizes: Sequence[int]
    seconds: Sequence[float]


def draw_growth(lines: Sequence[Line], path: Path) -> None:
    """Write an SVG: both axes logarithmic, so that a power is a straight line; dotted what each should be."""
    panels = list(dict.fromkeys(line.against for line in lines))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
        for axes, against in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, [line for line in lines if line.against == against])
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for number, line in enumerate(lines):
        milliseconds = [1e3 * taken for taken in line.seconds]
        axes.plot(line.sizes, milliseconds, color=COLOURS[number], marker=MARKERS[number], label=line.name)
        exponent = {"flat": 0.0, "linear": 1.0}[line.shape]
        ideal = [milliseconds[0] * (size / line.sizes[0]) ** exponent for size in line.sizes]
        axes.plot(line.sizes, ideal, color=COLOURS[number], linestyle=":", linewidth=1.0, label=line.shape)
    axes.set_xlabel(lines[0].against)
    axes.set_ylabel("ms a step, one thread")
    axes.set_xticks(list(lines[0].sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: short(size)))
    low, high = axes.get_ylim()
    axes.set_ylim(low / 3, high * 6)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def short(size: float) -> str:
    """100k, 3M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if size >= unit:
            return f"{size / unit:.0f}{letter}"
    return f"{size:.0f}"
