"""The page: one file of HTML without scripts, and without anything that would have to be loaded.

Jinja escapes all text, and the filter `visible` writes what is not seen (control characters, marks that turn the
reading direction, half surrogates) as escapes, so that what a model says is text and never markup. A policy in the page
forbids scripts and requests on top of that. Nothing depends on time, place or order of hashing: the same results give
the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from configs.visible_text import visible
from evaluation.report.blocks import SYMBOLS, Section
from evaluation.report.charts import legend_key
from evaluation.report.numbers import ABSENT

TEMPLATES = "templates"


def page_of(title: str, sections: Sequence[Section]) -> str:
    """Sections as one self-contained page of HTML."""
    style = resources.files("evaluation.report").joinpath(TEMPLATES, "style.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("evaluation.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.globals.update(
        kind_of=lambda block: type(block).__name__, legend_key=legend_key, symbols=SYMBOLS, absent=ABSENT
    )
    rendered = environment.get_template("page.html").render(title=title, sections=sections, style=Markup(style))
    return rendered.lstrip()  # the lines of the macros
