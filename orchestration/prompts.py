"""From rows of data to token ids: after this module only ids exist.

Rows come from a hub dataset or a file (JSONL, Parquet, CSV). A row that cannot be used is set aside with its reason;
a file that cannot be used is an error. Text that spells a special token is set aside, because the tokenizer would
turn it into the control token itself.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from configs import DataError
from configs.schema import DataConfig, SplitConfig

SPLITS = ("train", "dev", "test")
ROLES = ("system", "user", "assistant", "tool")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BROKEN = re.compile("[\ufffd\ud800-\udfff]")
"""The character that replaces invalid bytes, and halves of pairs."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The instruction template of Stanford Alpaca (Taori et al. 2023), which MiniLLM and DistiLLM use as well."""

Row = Mapping[str, Any]


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
        for index, row in _read_rows(getattr(config, name), split=name):
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


def _read_rows(source: SplitConfig, *, split: str) -> Iterator[tuple[int, Row | str]]:
    """Yield (row number, row), or a reason in place of a row that cannot be decoded."""
    rows: Iterator[Row | str]
    kind = source.path.suffix.lower() if source.path is not None else None
    if source.path is None or kind == ".parquet":
        rows = _dataset_rows(source, split)
    elif kind == ".jsonl":
        rows = jsonl_rows(source.path)
    elif kind == ".csv":
        rows = _csv_rows(source.path)
    else:
        raise DataError(f"data.{split}.path={source.path}: name a .jsonl, .parquet or .csv file")
    return enumerate(islice(rows, source.limit))


def jsonl_rows(path: Path) -> Iterator[Row | str]:
    """JSONL is read line by line, so that one broken line costs one row and not the file."""
    with path.open("rb") as stream:
        for line in stream:
            line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield _json_row(line)


def _json_row(line: bytes) -> Row | str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except json.JSONDecodeError as error:
        return f"invalid JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or lists in lists in lists.
        return f"invalid JSON: {error}"
    return row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path) -> Iterator[Row | str]:
    """CSV is read as text: "12" stays "12" and "NA" stays "NA"."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        # `strict` finds a quote that is never closed, which would otherwise swallow the rest of the file.
        rows = csv.DictReader(stream, strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield f"invalid CSV: {error}"
                continue
            if row is None:
                return
            yield "more cells than the header" if None in row else row


def _dataset_rows(source: SplitConfig, split: str) -> Iterator[Row]:
    """Rows of a hub dataset, of a directory that holds one, or of a Parquet file."""
    try:
        if source.hub is not None:
            data = load_dataset(source.hub, source.subset, split=source.split or split, revision=source.revision)
        else:
            data = load_dataset("parquet", data_files=str(source.path), split="train")
    except (DatasetNotFoundError, DatasetGenerationError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or ["unknown"])[0]
        raise DataError(
            f"data.{split}: {source.hub or source.path} cannot be read: {reason}; correct its name or the file"
        ) from error
    yield from data


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
