from __future__ import annotations

from dataclasses import replace

import pytest
from hostile_results import HOSTILE, hostile
from results_builders import finished_run

from evaluation.report.blocks import Folded, MarkdownOnly, Paragraph, Sample
from evaluation.report.contents import contents
from evaluation.report.markdown import markdown_of
from evaluation.report.merging import parts_of
from evaluation.report.page import page_of
from evaluation.report.samples import LONGEST, OPENED, SHOWN, compared, samples_section, shown, spread


def differing(reference: str, answer: str) -> list[str]:
    return [piece.text for piece in compared(reference, answer) if piece.differs]


def test_what_differs_from_the_reference_is_marked_by_words() -> None:
    assert differing("The sky is blue today.", "The sky is green today.") == ["green"]
    assert differing("one two", "one two") == []
    assert differing("", "all of it") == ["all of it"]
    assert differing("something", "") == []


def test_the_pieces_are_the_answer() -> None:
    answer = "Ein  ganz\nanderer, 42 % neuer Text — 日本語のテキスト"
    assert "".join(piece.text for piece in compared("Ein Text 日本の", answer)) == answer


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    assert differing("今日は天気がいい", "今日は天気が悪い") == ["悪"]


def test_a_text_is_cut_and_made_visible() -> None:
    text, left_out = shown("a\u202eb\r\nc\x1b" + "x" * 2_000_000)
    assert text.startswith("a\\u202eb\nc\\x1b")
    assert left_out == len("a\u202eb\nc\x1b") + 2_000_000 - LONGEST
    assert shown("short") == ("short", 0)


@pytest.mark.timeout(100)  # seconds where the time grows with the text, hours where it grows with its square
def test_hostile_answers_take_no_time_and_lose_nothing_that_is_seen() -> None:
    section = samples_section(parts_of([hostile(finished_run())])[0])
    seen = str(section)
    assert "\u202e" not in seen and "\x1b" not in seen
    assert (
        max(
            len(piece.text)
            for block in section.blocks
            if isinstance(block, Sample)
            for answer in block.answers
            for piece in answer.pieces
        )
        < 10 * LONGEST
    )
    assert HOSTILE[0] in seen


def test_samples_are_spread_over_the_prompts() -> None:
    assert spread(3, 24) == [0, 1, 2]
    assert spread(0, 24) == []
    chosen = spread(100, SHOWN)
    assert len(chosen) == SHOWN and chosen[0] == 0 and chosen[-1] >= 90


@pytest.mark.parametrize("prompts", [1, OPENED, OPENED + 1, 40])
def test_the_first_samples_are_open_and_the_others_folded(prompts: int) -> None:
    run = finished_run(prompts=prompts)
    section = samples_section(parts_of([run])[0])
    opened = [block for block in section.blocks if isinstance(block, Sample)]
    folded = [inner for block in section.blocks if isinstance(block, Folded) for inner in block.blocks]
    assert len(opened) == min(prompts, OPENED) and all(sample.opened for sample in opened)
    assert len(opened) + len(folded) == min(prompts, SHOWN)
    assert [answer.model for answer in opened[0].answers] == ["reference", *(model.name for model in run.models)]


def test_every_prompt_stands_in_markdown_and_some_on_the_page() -> None:
    run = finished_run(prompts=SHOWN + 2)
    first, *_, rest = samples_section(parts_of([run])[0]).blocks
    assert isinstance(first, Paragraph) and f"{SHOWN} of {SHOWN + 2} test prompts (the others stand" in first.text
    assert isinstance(rest, MarkdownOnly)
    sections = contents([run])
    markdown, page = markdown_of("quickstart", sections), page_of("quickstart", sections)
    assert all(prompt in markdown for prompt in run.prompts)
    assert sum(prompt in page for prompt in run.prompts) == SHOWN
    assert f"    {run.models[-1].answers[1]}\n" in markdown


def test_without_prompts_it_says_so() -> None:
    run = replace(finished_run(prompts=1), prompts=(), references=())
    (block,) = samples_section(parts_of([run])[0]).blocks
    assert block == Paragraph("There are no test prompts.")
