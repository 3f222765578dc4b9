"""The report as Markdown: the same sections without pictures, for terminals, reviews and the notes of a tracker."""

from __future__ import annotations

from collections.abc import Sequence

from configs.visible_text import markdown_text, visible
from evaluation.report.blocks import (
    SYMBOLS,
    Block,
    Cell,
    Charts,
    Column,
    Folded,
    Lines,
    MarkdownOnly,
    Paragraph,
    Sample,
    Section,
    Table,
    Verdict,
)

LONGEST_LINE = 2_000
"""Characters of one line of a list."""


def markdown_of(title: str, sections: Sequence[Section]) -> str:
    """Sections as Markdown."""
    return f"# {markdown_text(title)}\n\n{sections_in_markdown(sections)}"


def sections_in_markdown(sections: Sequence[Section]) -> str:
    """The same without a title, for a page that has one."""
    lines: list[str] = []
    for section in sections:
        lines += [f"## {markdown_text(section.title)}", ""]
        for block in section.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip() + "\n"


def note_of(sections: Sequence[Section]) -> str:
    """The verdict alone, for the note of a run."""
    found = [block for section in sections for block in section.blocks if isinstance(block, Verdict)]
    paragraphs = []
    for verdict in found:
        first, *others = (markdown_text(line) for line in verdict.lines)
        paragraphs += [f"**{first}**", *others]
    return "\n\n".join(paragraphs) + "\n"


def _block(block: Block) -> list[str]:
    match block:
        case Table():
            return _table(block)
        case Paragraph():
            return [markdown_text(block.text), ""]
        case Verdict():
            first, *others = (markdown_text(line) for line in block.lines)
            return [f"**{first}**", "", *(line for other in others for line in (other, ""))]
        case Lines():
            title = [f"**{markdown_text(block.title)}**", ""] if block.title else []
            return [*title, *(f"- {markdown_text(line, at_most=LONGEST_LINE)}" for line in block.lines), ""]
        case Charts():
            return []
        case Sample():
            return _sample(block)
        case MarkdownOnly():
            return [line for each in block.blocks for line in _block(each)]
        case Folded():
            inner = [line for each in block.blocks for line in _block(each)]
            # What it holds are charts alone, which Markdown has none of.
            return [f"**{markdown_text(block.title)}**", "", *inner] if inner else []


def _table(table: Table) -> list[str]:
    titles = [markdown_text(table.corner), *map(_title, table.columns)]
    rows = [[markdown_text(row.title), *map(_cell, row.cells)] for row in table.rows]
    rule = ["---", *("---:" if column.numeric else "---" for column in table.columns)]
    return [
        f"{markdown_text(table.caption)}:",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows)),
        "",
    ]


def _title(column: Column) -> str:
    return markdown_text(f"{column.title}, {column.note}" if column.note else column.title)


def _cell(cell: Cell) -> str:
    note = f" ({cell.note})" if cell.note else ""
    marks = "".join(f" {SYMBOLS[mark.sign]} {mark.against}" for mark in cell.marks)
    return markdown_text(f"{cell.text}{note}{marks}")


def _sample(sample: Sample) -> list[str]:
    lines = [f"**{markdown_text(sample.title)}**", "", *_literal(sample.prompt), ""]
    for answer in sample.answers:
        cut = f", {answer.left_out:,} more characters" if answer.left_out else ""
        lines += [f"{markdown_text(answer.model)}{cut}:", ""]
        lines += [*_literal("".join(piece.text for piece in answer.pieces)), ""]
    return lines


def _literal(text: str) -> list[str]:
    """The lines of a code block: whatever a model writes, headings and HTML included, stays text."""
    return [f"    {line}" for line in visible(text, lines=True).splitlines()] or ["    (empty)"]
