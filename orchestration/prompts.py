"""From rows of data to token ids: after this module only ids exist.

Rows come from `orchestration.rows`. A row that cannot be used is set aside with its reason;
a file that cannot be used is an error. Text that spells a special token is set aside, because the tokenizer would
turn it into the control token itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from configs import DataError
from configs.schema import DataConfig
from orchestration.rows import Row, split_rows

SPLITS = ("train", "dev", "test")
ROLES = ("system", "user", "assistant", "tool")
BROKEN = re.compile("[\ufffd\ud800-\udfff]")
"""The character that replaces invalid bytes, and halves of pairs."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The instruction template of Stanford Alpaca (Taori et al. 2023), which MiniLLM and DistiLLM use as well."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One usable row. `gold_ids` end with the end-of-sequence token; None when the row has no gold answer."""

    row: int
    text: str
    prompt_ids: tuple[int, ...]
    gold_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was set aside."""

    split: str
    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The usable prompts of all splits, and what was set aside."""

    splits: Mapping[str, tuple[Prompt, ...]]
    rejected: tuple[Rejected, ...]

    def write_rejected(self, path: Path) -> None:
        """Write one JSON object a rejected row."""
        path.write_text("".join(json.dumps(asdict(row), ensure_ascii=True) + "\n" for row in self.rejected))


def load_prompts(config: DataConfig, *, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> PromptSet:
    """Load, render and tokenise every split.

    Raises:
        DataError: a split cannot be read, has no usable row, lacks the field, or repeats a prompt of another split.
    """
    splits: dict[str, tuple[Prompt, ...]] = {}
    rejected: list[Rejected] = []
    for name in SPLITS:
        reader = _Reader(name, config, tokenizer, max_new_tokens, control_tokens(tokenizer))
        usable: list[Prompt] = []
        for index, row in split_rows(getattr(config, name), split=name):
            outcome = row if isinstance(row, str) else reader.prompt(row, index)
            if isinstance(outcome, Prompt):
                usable.append(outcome)
            else:
                rejected.append(Rejected(name, index, outcome, _preview(row)))
        if not usable:
            raise DataError(f"data.{name}: no usable row; {_why_empty(name, rejected)}")
        splits[name] = tuple(usable)
    _refuse_overlap(splits)
    return PromptSet(splits, tuple(rejected))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the rows of one split into prompts. `control` are the texts of the special tokens."""

    split: str
    config: DataConfig
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    control: tuple[str, ...]

    def prompt(self, row: Row, index: int) -> Prompt | str:
        """One prompt, or the reason why the row is set aside."""
        conversation = self._conversation(row, index)
        if isinstance(conversation, str):
            return conversation
        messages, gold = conversation
        for text in [message["content"] for message in messages] + ([gold] if gold is not None else []):
            reason = unusable(text, control=self.control)
            if reason is not None:
                return reason
        try:
            rendered = self._render(messages)
        except TemplateError as error:
            return f"refused by the chat template: {error}"
        limit = self.config.max_prompt_tokens
        prompt_ids = self.tokenizer.encode(rendered, add_special_tokens=self.config.template != "chat")
        if len(prompt_ids) > limit:
            return f"{len(prompt_ids)} prompt tokens, more than data.max_prompt_tokens={limit}"
        gold_ids = None if gold is None else self._gold_ids(gold)
        if gold_ids is not None and len(gold_ids) > self.max_new_tokens:
            return f"{len(gold_ids)} response tokens, more than generation.max_new_tokens={self.max_new_tokens}"
        return Prompt(index, messages[-1]["content"], tuple(prompt_ids), gold_ids)

    def _conversation(self, row: Row, index: int) -> tuple[list[dict[str, Any]], Any] | str:
        """The messages that make the prompt, and the gold answer if the row has one; or why there are none."""
        config = self.config
        gold = None
        if config.messages_field is not None:
            messages = _messages(self._field(row, index, config.messages_field))
            if isinstance(messages, str):
                return messages
            if messages[-1]["role"] == "assistant":
                gold = messages.pop()["content"]
            if not messages:
                return "no message before the assistant's"
        else:
            messages = [{"role": "user", "content": self._field(row, index, config.prompt_field)}]
            if config.response_field is not None:
                gold = self._field(row, index, config.response_field)
                if gold is None:
                    return f"no {config.response_field}"
        if config.system_prompt is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": config.system_prompt})
        return messages, gold

    def _field(self, row: Row, index: int, name: str) -> Any:
        if name not in row:
            raise DataError(
                f"data.{self.split} row {index} has no field {name!r}, only {', '.join(map(repr, row)) or 'none'}: "
                "set data.prompt_field, data.response_field or data.messages_field"
            )
        return row[name]

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self.config.template == "raw":
            return messages[-1]["content"]
        if self.config.template == "alpaca":
            return ALPACA.format(prompt=messages[-1]["content"])
        if not self.tokenizer.chat_template:
            raise DataError("data.template=chat but the teacher's tokenizer has no chat template: use alpaca or raw")
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _gold_ids(self, gold: str) -> tuple[int, ...]:
        end = self.tokenizer.eos_token_id
        if end is None:
            raise DataError(
                "gold answers end with the end-of-sequence token, which the teacher's tokenizer does not have: "
                "unset data.response_field, or use a teacher that has one"
            )
        return (*self.tokenizer.encode(gold, add_special_tokens=False), end)


def _messages(listed: object) -> list[dict[str, Any]] | str:
    """A conversation as role and content alone, or why it is none."""
    if not isinstance(listed, list) or not listed:
        return "not a list of messages"
    messages = []
    for message in listed:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            return "a message without role and content"
        if message["role"] not in ROLES:
            return f"a message of role {message['role']!r}, not one of {', '.join(ROLES)}"
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def unusable(text: object, *, control: tuple[str, ...]) -> str | None:
    """Why a text cannot be used, if it cannot; `control` are the texts of the special tokens."""
    if not isinstance(text, str):
        return f"not text but {'nothing' if text is None else type(text).__name__}"
    if not text.strip():
        return "empty"
    if BROKEN.search(text):
        return "invalid UTF-8"
    spelled = next((token for token in control if token in text), None)
    return None if spelled is None else f"special token {spelled} written as text"


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that the tokenizer would turn into control tokens: also those that have no name such as EOS."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens)))


def _refuse_overlap(splits: Mapping[str, tuple[Prompt, ...]]) -> None:
    seen: dict[tuple[int, ...], tuple[str, int]] = {}
    for name, prompts in splits.items():
        for prompt in prompts:
            other = seen.setdefault(prompt.prompt_ids, (name, prompt.row))
            if other[0] != name:
                raise DataError(
                    f"data.{name} row {prompt.row} is the same prompt as data.{other[0]} row {other[1]}: "
                    "remove it from one split, or held-out numbers mean nothing"
                )


def _why_empty(split: str, rejected: list[Rejected]) -> str:
    reasons = [row.reason for row in rejected if row.split == split]
    return f"all {len(reasons)} were set aside, the first because: {reasons[0]}" if reasons else "the file has no rows"


def _preview(row: Row | str) -> str:
    return "" if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)[:300]
