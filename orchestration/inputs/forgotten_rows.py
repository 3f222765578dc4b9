"""Rows of the data that were forgotten (`distill cache forget`): nobody is asked about them, and nobody learns them.

They are set aside without their text: what is to be gone must not stand in a run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache.erasures import FORGOTTEN, Erasures
from orchestration.inputs.prompts import Prompt, PromptTable, Rejected
from orchestration.inputs.wide_prompts import Widened


def without_forgotten(read: Widened, erasures: Erasures) -> Widened:
    """The prompts and windows of plain text without what was forgotten, and how many that are."""
    if not erasures.names:
        return read
    prompts, gone = read.prompts, list[Rejected]()
    splits = {name: _kept(rows, erasures, split=name, gone=gone) for name, rows in prompts.splits.items()}
    plain = {name: _kept(rows, erasures, split=f"plain-{name}", gone=gone) for name, rows in prompts.plain.items()}
    if not gone:
        return read
    left = replace(prompts, splits=splits, plain=plain, rejected=(*prompts.rejected, *gone))
    said = f"{len(gone):,} rows of the data were forgotten and are left out: remove them from the data as well."
    return Widened(left, (*read.said, said))


def _kept(rows: Sequence[Prompt], erasures: Erasures, *, split: str, gone: list[Rejected]) -> PromptTable:
    """Those that hold nothing that was forgotten; `gone` grows by the others."""
    kept = PromptTable()
    for row in rows:
        answer = row.gold_ids or ()
        if any(erasures.hold(prompt + answer, prompt_len=len(prompt)) for prompt in {row.prompt_ids, row.asked_ids}):
            gone.append(Rejected(split, row.row, FORGOTTEN, ""))
        else:
            kept.append(row)
    return kept
