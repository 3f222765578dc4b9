"""Answers of all models side by side, and where each one leaves the teacher's words."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from configs.visible_text import visible
from evaluation.report.blocks import Answer, Block, Folded, MarkdownOnly, Paragraph, Piece, Sample, Section
from evaluation.report.merging import Part

SHOWN = 24
"""Samples on a page, evenly spread over the prompts; Markdown has all of them."""

OPENED = 3
REST = " (the others stand in report.md)"
LONGEST = 1_500
"""Characters of an answer on a page."""

# Scripts that put no space between words are compared character by character.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\s+|[^\W{_UNSPACED}]+|\w|[^\w\s]")


def samples_section(part: Part) -> Section:
    """Some prompts with the teacher's cached answer and those of all models."""
    results = part.results
    chosen = spread(len(results.prompts), SHOWN)
    samples = [_sample(part, index, opened=place < OPENED) for place, index in enumerate(chosen)]
    others = [_sample(part, index, marked=False) for index in range(len(results.prompts)) if index not in set(chosen)]
    blocks: list[Block] = [
        Paragraph(
            f"{len(chosen)} of {len(results.prompts)} test prompts{REST if others else ''}. The reference is the "
            "teacher's answer in the cache; what is underlined is not in it."
            if samples
            else "There are no test prompts."
        ),
        *samples[:OPENED],
    ]
    if samples[OPENED:]:
        blocks.append(Folded(f"{len(samples) - OPENED} more prompts", tuple(samples[OPENED:])))
    if others:
        blocks.append(MarkdownOnly((Folded("The other prompts", tuple(others)),)))
    return Section("samples", "Answers", tuple(blocks))


def spread(total: int, wanted: int) -> list[int]:
    """`wanted` indices of `total`, evenly spread, the first one among them."""
    count = min(total, wanted)
    return [place * total // count for place in range(count)]


def compared(reference: str, answer: str) -> tuple[Piece, ...]:
    """The answer in pieces that stand in the reference, in this order, and pieces that do not."""
    told, said = _WORD.findall(reference), _WORD.findall(answer)
    matcher = SequenceMatcher(None, told, said, autojunk=False)
    pieces: list[Piece] = []
    for tag, _, _, begin, end in matcher.get_opcodes():
        if begin < end:
            pieces.append(Piece("".join(said[begin:end]), differs=tag != "equal"))
    return tuple(pieces)


def shown(text: str) -> tuple[str, int]:
    """The beginning of a text with what is not seen made visible, and how many characters were left out."""
    kept = text.replace("\r\n", "\n")
    # Cut before it is made visible, which takes time for each character.
    return visible(kept[:LONGEST], lines=True), max(len(kept) - LONGEST, 0)


def _sample(part: Part, index: int, *, opened: bool = False, marked: bool = True) -> Sample:
    """All answers to a prompt; where they differ is not looked for if nobody will see it `marked`."""
    results = part.results
    reference, left_out = shown(results.references[index])
    answers = [Answer("reference", 0, (Piece(reference, differs=False),), left_out)]
    for model in results.models:
        if index < len(model.answers):
            said, more = shown(model.answers[index])
            pieces = compared(reference, said) if marked else (Piece(said, differs=False),)
            answers.append(Answer(model.name, part.numbers[model.name], pieces, more))
    prompt, _ = shown(results.prompts[index])
    return Sample(f"Prompt {index + 1}", prompt, tuple(answers), opened)
