"""What is judged as a whole: the turns of a row, or a prompt and its answer (`orchestration.inputs.unwanted.Guard`).

A list of words looks at every field of a row. A model that guards another one reads what a model would: a prompt with
what was answered to it. Notes, numbers and labels of a row are no part of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from configs.data import DataConfig
from configs.task import TaskConfig
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.templates import UnfitRowError, row_template
from orchestration.inputs.rows import Row

Speaker = Literal["user", "assistant"]
Turn = tuple[Speaker, str]

NO_TEXTS = ("label", "tags", "pair")
"""Roles of fields of a task that are not texts."""

NAMES: Mapping[Speaker, str] = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Turns of two who take turns, the asker first; the last one is what is judged, the others say to what."""

    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, prompt: str, answer: str | None = None) -> Exchange:
        """A prompt alone, or with its answer."""
        asked: Turn = ("user", prompt)
        return cls((asked,) if answer is None else (asked, ("assistant", answer)))

    @property
    def is_answer(self) -> bool:
        """Whether an answer is judged."""
        return self.turns[-1][0] == "assistant"

    @property
    def prompt(self) -> str:
        """What is judged if it is a prompt, or what its answer is to: one text, of several turns with who speaks."""
        before = self.turns[:-1] if self.is_answer else self.turns
        return before[0][1] if len(before) == 1 else "\n\n".join(f"{NAMES[who]}: {text}" for who, text in before)

    @property
    def answer(self) -> str:
        """What is judged if it is an answer; empty if it is a prompt."""
        return self.turns[-1][1] if self.is_answer else ""


ExchangeOf = Callable[[Row], Exchange | None]
"""What of a row is judged as a whole; None where it holds nothing of the kind, which whoever reads it says."""


def whole_row(row: Row) -> Exchange | None:
    """Every text of a row, as one prompt."""
    texts = [text for text in _texts(list(row.values())) if text.strip()]
    return Exchange.of("\n".join(texts)) if texts else None


def exchange_of_prompts(data: DataConfig) -> ExchangeOf:
    """How rows of prompts are judged: with their gold answers, where they have any."""

    def exchange(row: Row) -> Exchange | None:
        if data.messages_field is not None:
            return _of_messages(row.get(data.messages_field))
        prompt = row.get(data.prompt_field)
        answer = None if data.response_field is None else row.get(data.response_field)
        if not isinstance(prompt, str):
            return None
        return Exchange.of(prompt, answer if isinstance(answer, str) else None)

    return exchange


def exchange_of_text(field: str) -> ExchangeOf:
    """How plain text is judged: as somebody's prompt."""

    def exchange(row: Row) -> Exchange | None:
        text = row.get(field)
        return Exchange.of(text) if isinstance(text, str) and text.strip() else None

    return exchange


def exchange_of_task(task: TaskConfig) -> ExchangeOf:
    """How rows of a task are judged: what is read of them, and their answers where these are texts, as one prompt."""
    sources = {"template": task.template, "answer": task.answer or ""}
    read = {name for key, text in sources.items() for name in row_template(text, task=task.name, key=key).reads}
    apart = {name for role, name in task.fields.items() if role in NO_TEXTS}
    names = [name for name in dict.fromkeys([*sorted(read), *task.fields.values()]) if name not in apart]

    def exchange(row: Row) -> Exchange | None:
        found = dict[str, Any]()
        for name in names:
            try:
                found[name] = row_field(row, name)
            except UnfitRowError:
                continue
        return whole_row(found)

    return exchange


def _of_messages(listed: object) -> Exchange | None:
    """A conversation, of which whoever is not the assistant asks; turns of one speaker are one."""
    if not isinstance(listed, list):
        return None
    said = [(each.get("role"), each.get("content")) for each in listed if isinstance(each, Mapping)]
    turns: list[Turn] = [
        ("assistant" if role == "assistant" else "user", text)
        for role, text in said
        if isinstance(text, str) and text.strip()
    ]
    joined: tuple[Turn, ...] = tuple(
        (who, "\n\n".join(text for _, text in several)) for who, several in groupby(turns, key=lambda turn: turn[0])
    )
    return Exchange(joined) if joined else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        # Words of tagging are one text.
        if all(isinstance(each, str) for each in value):
            yield " ".join(value)
        else:
            for each in value:
                yield from _texts(each)
