"""The rows of an experiment: where its splits lie, and how a row becomes a prompt."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from configs.models import Block, Positive

TEMPLATE_DATE = date(2024, 7, 26)
"""The default of `data.template_date`: the day that the templates of Llama 3 fall back to themselves. The day of the
run would make every row another prompt each morning (docs/decisions/0014-chat-templates.md)."""
TEMPLATE_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"}
)


class SplitConfig(Block):
    """One split of the data: a file (JSONL, Parquet, CSV) or a hub dataset."""

    path: Path | None = None
    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    split: str | None = None
    limit: Positive | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError(f"name exactly one of path and hub; got path={self.path}, hub={self.hub}")
        return self

    @property
    def assumed_rows(self) -> int | None:
        """Rows as far as they are known without looking at the data: `limit`, or the length of a slice."""
        sliced = re.fullmatch(r"\w+\[(\d*):(\d+)\]", self.split or "")
        rows = int(sliced[2]) - int(sliced[1] or 0) if sliced else None
        return min((n for n in (rows, self.limit) if n is not None), default=None)


class PlainConfig(Block):
    """Plain text that stages with `source: plain` learn as it stands: a row's `field` is a text.

    A text is read in windows of at most `max_tokens` tokens. Of each the first is given and all others are learned; it
    is the last one of the window before, so every token of a text but its first is learned once.
    """

    train: SplitConfig
    dev: SplitConfig
    field: str = "text"
    max_tokens: Annotated[int, Field(ge=2)] = 256


class DataConfig(Block):
    """The prompts. A row holds `prompt_field`, or `messages_field` (a conversation) and perhaps `tools_field`.

    Every model answers `test`. To the prompts of `train` and `dev` answers are learned, and measured: both may be left
    out where plain text alone is learned.

    `chat_template` names one of a tokenizer's several templates, `template_kwargs` are further variables for it
    (`enable_thinking: false`), and `template_date` is the day given to a template that asks for today. `plain` is text
    without any prompt.
    """

    train: SplitConfig | None = None
    dev: SplitConfig | None = None
    test: SplitConfig
    prompt_field: str = "prompt"
    response_field: str | None = None
    messages_field: str | None = None
    tools_field: str | None = None
    template: Literal["chat", "alpaca", "raw"] = "chat"
    chat_template: str | None = None
    template_kwargs: dict[str, JsonValue] | None = None
    template_date: date | None = None
    system_prompt: str | None = None
    max_prompt_tokens: Positive = 256
    plain: PlainConfig | None = None

    @model_validator(mode="after")
    def _system_needs_chat(self) -> Self:
        if self.system_prompt is not None and self.template != "chat":
            raise ValueError(f"system_prompt is only used by template=chat, not template={self.template}: remove one")
        if self.messages_field is not None and self.template != "chat":
            raise ValueError(f"messages_field needs template=chat, not template={self.template}: change one")
        if self.tools_field is not None and self.messages_field is None:
            raise ValueError(f"tools_field={self.tools_field} needs messages_field, which is not set: set both or none")
        return self

    @model_validator(mode="after")
    def _template_is_ours(self) -> Self:
        for key in ("chat_template", "template_kwargs", "template_date"):
            if getattr(self, key) is not None and self.template != "chat":
                raise ValueError(f"{key} is only used by template=chat, not template={self.template}: remove one")
        taken = sorted(set(self.template_kwargs or {}) & TEMPLATE_VARIABLES)
        if taken:
            raise ValueError(f"template_kwargs.{taken[0]} is given to every template anyway: remove it")
        return self

    @property
    def splits(self) -> dict[str, SplitConfig]:
        """The splits that there are, by name."""
        named = {"train": self.train, "dev": self.dev, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def date_of_templates(self) -> date:
        """The day that is given to templates which ask for today."""
        return self.template_date or TEMPLATE_DATE
