"""What a report consists of: sections of blocks, the same ones whether a page or Markdown is made of them.

Text in a block is as it was measured or written, hostile or not: whoever writes a page or Markdown makes it visible and
escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Sign = Literal["better", "worse", "same"]

SYMBOLS: dict[Sign, str] = {"better": "▲", "worse": "▼", "same": "≈"}
"""How a mark is drawn; what it says is said in words too."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What sets a number apart from that of another model: `against` names it briefly, `words` say it in full."""

    sign: Sign
    against: str
    words: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its text, a smaller line below (an interval, a spread), and marks."""

    text: str
    note: str = ""
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and a smaller line below it (a unit, a direction, a device)."""

    title: str
    note: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """A row; `number` is that of its model on the page, for the key of its colour and shape."""

    title: str
    cells: tuple[Cell, ...]
    note: str = ""
    number: int | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table. `corner` is the title of the first column, which names the rows."""

    caption: str
    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it all comes to, a sentence or two a line; the first is the answer."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """A list of lines; `title` stands above it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and the line below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts that stand beside each other; `legend` holds name and number of the models in them."""

    charts: tuple[Chart, ...]
    legend: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer; `differs` from the teacher's."""

    text: str
    differs: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said, as pieces; `left_out` counts the characters that are not shown.

    `number` is that of the model on the page; None for what no model said.
    """

    model: str
    number: int | None
    pieces: tuple[Piece, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and what every model made of it; the teacher's comes first. `opened` samples are seen at once."""

    title: str
    prompt: str
    answers: tuple[Answer, ...]
    opened: bool


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks that are shown when a reader asks for them."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class MarkdownOnly:
    """Blocks that would make a page too long: Markdown, a file to search in, has them."""

    blocks: tuple[Block, ...]


Block = Table | Paragraph | Verdict | Lines | Charts | Sample | Folded | MarkdownOnly


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `key` is its address on the page."""

    key: str
    title: str
    blocks: tuple[Block, ...]
