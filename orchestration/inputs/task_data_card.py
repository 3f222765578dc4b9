"""What the data of a task experiment consist of, counted, as `orchestration.inputs.data_card` has it of prompts.

Rows of the task as they are used, and the sets that students learn from. Lengths are in words: teacher and students
read with tokenizers of their own. Nothing of a row's text stands in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from configs.task import TaskData
from configs.visible_text import markdown_text
from evaluation.tasks.examples import Example
from orchestration.inputs.data_card import counted, lengths_in_words, source_in_words, without_numbers, writing_system
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.tasks import SPLITS, LoadedTask

_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*(?:'|$)|"(?:\\.|[^"\\])*(?:"|$)""")
"""What a reason quotes of a row, which may be cut off behind it."""

_PLACE = re.compile(r"^\w+ row \d+: ")


def task_data_card(name: str, task: LoadedTask, sets: TaskSets, *, data: TaskData, said: Sequence[str]) -> str:
    """The card as Markdown. `data` names the sources as they were written; `said` are lines of what was found."""
    lines = [f"# Data of {markdown_text(name)}", ""]
    lines += [f"Task {markdown_text(task.config.name)}, {task.config.kind}.", ""]
    for split in SPLITS:
        examples = getattr(task, split)
        if examples:
            lines += [f"## {split}", "", *(f"- {line}" for line in _split(split, examples, task, data=data)), ""]
    lines += ["## Learned from", ""]
    for each, examples in sets.sets.items():
        labelled = sum(example.labelled for example in examples)
        lines.append(f"- {markdown_text(each)}: {len(examples):,} examples, {labelled:,} with gold labels")
    found = [*sets.notes, *said]
    if found:
        lines += ["", "## What was found", "", *(f"- {markdown_text(_QUOTED.sub('...', line))}" for line in found)]
    return "\n".join([*lines, ""])


def _split(split: str, examples: Sequence[Example], task: LoadedTask, *, data: TaskData) -> Iterator[str]:
    texts = Counter(example.text for example in examples)
    yield f"Source: {markdown_text(source_in_words(getattr(data, split)))}"
    yield f"Rows: {len(examples):,}, of which {len(examples) - len(texts):,} say what another one says"
    yield f"Words of a row: {lengths_in_words(np.array([len(example.text.split()) for example in examples]))}"
    systems = Counter(writing_system(example.text) for example in examples)
    yield f"Writing systems, by most letters of a row: {counted(systems)}"
    if task.config.verbalisers:
        labels = Counter(label for example in examples for label in _labels(example, task))
        yield f"Labels: {markdown_text(counted(labels)) or 'none'}"
    for reason, count in _set_aside(split, task).most_common():
        yield f"Set aside: {count:,} because {markdown_text(reason)}"


def _labels(example: Example, task: LoadedTask) -> Iterator[str]:
    """The label of a text, or the types of its entities."""
    for gold in example.gold:
        yield gold.rpartition(" ")[2] if task.config.kind == "tagging" else gold


def _set_aside(split: str, task: LoadedTask) -> Counter[str]:
    """Reasons of rows of a split, without what they repeat of a row."""
    lines = (line for line in task.facts.set_aside if line.startswith(f"{split} "))
    return Counter(without_numbers(_QUOTED.sub("...", _PLACE.sub("", line))) for line in lines)
