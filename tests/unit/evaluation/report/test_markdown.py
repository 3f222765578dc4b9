from __future__ import annotations

import re

import pytest
from hostile_results import hostile
from results_builders import finished_run, with_holes

from evaluation.report.blocks import Paragraph, Section, Verdict
from evaluation.report.contents import contents, title_of
from evaluation.report.markdown import markdown_of, note_of


@pytest.fixture(scope="module")
def sections() -> tuple[Section, ...]:
    return contents([finished_run(prompts=4)])


@pytest.fixture(scope="module")
def markdown(sections: tuple[Section, ...]) -> str:
    return markdown_of("quickstart", sections)


def test_it_begins_with_the_verdict_and_the_table(markdown: str) -> None:
    lines = [line for line in markdown.splitlines() if line]
    assert lines[:2] == ["# quickstart", "## Which student to ship"]
    assert lines[2].startswith("**Ship minillm: ")
    assert "▲ start" in markdown and "<svg" not in markdown


def test_every_row_of_a_table_has_all_cells(markdown: str) -> None:
    widths: list[set[int]] = [set()]
    for line in markdown.splitlines():
        if line.startswith("|"):
            widths[-1].add(len(re.findall(r"(?<!\\)\|", line)))
        elif widths[-1]:
            widths.append(set())
    assert len(widths) > 6 and all(len(each) == 1 for each in widths if each)


def test_the_note_is_the_verdict(sections: tuple[Section, ...]) -> None:
    note = note_of(sections)
    assert note.startswith("**Ship minillm: ") and "|" not in note and len(note) < 5000


def test_a_note_has_the_verdict_of_every_group() -> None:
    parts = tuple(Section(key, key, (Verdict((f"Ship {key}.", "Because.")), Paragraph("no"))) for key in "ab")
    assert note_of(parts) == "**Ship a.**\n\nBecause.\n\n**Ship b.**\n\nBecause.\n"


def test_hostile_text_is_text() -> None:
    runs = [hostile(with_holes(finished_run(prompts=8)))]
    markdown = markdown_of(title_of(runs), contents(runs))
    for line in markdown.splitlines():
        if not line.startswith("    "):
            assert re.search(r"(?<!\\)<|(?<!\\)\]\(", line) is None, line[:200]
    assert "\u202e" not in markdown and "\x1b" not in markdown
    markdown.encode()
    assert len(markdown) < 200_000
