"""What the data of a run consists of, counted: sources, rows, lengths, writing systems, and what was left out and why.

Written beside a run as `data-card.md` before anything is asked. Counts are of the rows as they are used: after limits,
screening and templates. Nothing of a row's text stands in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.data import DataConfig, SplitConfig
from configs.visible_text import markdown_text
from orchestration.inputs.prompts import Prompt, PromptSet

FILE = "data-card.md"

NO_LETTERS = "none"
"""The writing system of a text without letters."""

_NUMBER = re.compile(r"\d[\d,.]*")


def data_card(name: str, prompts: PromptSet, *, data: DataConfig, said: Sequence[str]) -> str:
    """The card as Markdown. `data` names the sources as they were written; `said` are lines of who read them."""
    lines = [f"# Data of {markdown_text(name)}", ""]
    for split, rows in prompts.splits.items():
        lines += [f"## {split}", "", *(f"- {line}" for line in _split(split, rows, prompts, data=data)), ""]
    if prompts.plain:
        windows = ", ".join(f"{len(rows):,} {split}" for split, rows in prompts.plain.items())
        lines += ["## Plain text", "", f"- Windows: {windows}", ""]
    if said:
        lines += ["## What was found", "", *(f"- {markdown_text(line)}" for line in said), ""]
    return "\n".join(lines)


def _split(split: str, rows: Sequence[Prompt], prompts: PromptSet, *, data: DataConfig) -> list[str]:
    aside = Counter(without_numbers(row.reason) for row in prompts.rejected if row.split == split)
    texts = Counter(row.text for row in rows)
    gold = [len(row.gold_ids) for row in rows if row.gold_ids is not None]
    systems = Counter(writing_system(row.text) for row in rows)
    return [
        f"Source: {markdown_text(source_in_words(data.splits[split]))}",
        f"Rows: {len(rows):,}, of which {len(rows) - len(texts):,} ask what another one asks",
        f"Tokens of a prompt: {lengths_in_words([len(row.prompt_ids) for row in rows])}",
        *([f"Tokens of a gold answer: {lengths_in_words(gold)} ({len(gold):,} rows have one)"] if gold else []),
        f"Writing systems, by most letters of a row: {counted(systems)}",
        *(f"Set aside: {count:,} because {markdown_text(reason)}" for reason, count in aside.most_common()),
    ]


def writing_system(text: str) -> str:
    """The writing system of most letters of a text, as Unicode names it ("latin", "cyrillic", "cjk").

    It is not the language: Latin letters write hundreds of them.
    """
    found = Counter(unicodedata.name(char, "unknown").split()[0].lower() for char in text if char.isalpha())
    return found.most_common(1)[0][0] if found else NO_LETTERS


def without_numbers(reason: str) -> str:
    """A reason that is the same of many rows."""
    return _NUMBER.sub("N", reason)


def source_in_words(source: SplitConfig) -> str:
    """The file by its name or the data set by its id, with what is taken of it."""
    said = source.model_dump(mode="json", exclude_none=True, exclude={"path"})
    where = [] if source.path is None else [source.path.name]
    return ", ".join([*where, *(f"{key} {value}" for key, value in said.items())])


def lengths_in_words(lengths: Sequence[int] | NDArray[np.int64]) -> str:
    """Median and spread."""
    low, median, high, most = np.percentile(np.asarray(lengths), [5, 50, 95, 100])
    return f"median {median:,.0f}, 5 to 95 %: {low:,.0f} to {high:,.0f}, most {most:,.0f}"


def counted(counts: Counter[str]) -> str:
    """Names with their counts, the most frequent first."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
