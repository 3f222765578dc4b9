"""From rows of data to token ids: after this module only ids exist.

Rows come from a hub dataset or a file (JSONL, Parquet, CSV). A row that cannot be used is set aside with its reason;
a file that cannot be used is an error. Text that spells a special token is set aside, because the tokenizer would
turn it into the control token itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from transformers import PreTrainedTokenizerBase

from configs import DataError
from configs.schema import DataConfig, SplitConfig

SPLITS = ("train", "dev", "test")
LOADERS = {".parquet": "parquet", ".csv": "csv"}
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
        usable: list[Prompt] = []
        for index, row in _read_rows(getattr(config, name), split=name):
            outcome = row if isinstance(row, str) else _tokenise(row, index, config, tokenizer, max_new_tokens)
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
    rows = _jsonl_rows(source.path) if source.path and source.path.suffix == ".jsonl" else _dataset_rows(source, split)
    for index, row in enumerate(rows):
        if source.limit is not None and index >= source.limit:
            return
        yield index, row


def _jsonl_rows(path: Path) -> Iterator[Row | str]:
    """JSONL is read line by line, so that one broken line costs one row and not the file."""
    with path.open("rb") as stream:
        for line in stream:
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                yield "invalid UTF-8"
                continue
            except json.JSONDecodeError as error:
                yield f"invalid JSON: {error.msg}"
                continue
            yield row if isinstance(row, dict) else "not a JSON object"


def _dataset_rows(source: SplitConfig, split: str) -> Iterator[Row]:
    try:
        if source.hub is not None:
            data = load_dataset(source.hub, source.subset, split=source.split or split, revision=source.revision)
        else:
            assert source.path is not None
            loader = LOADERS.get(source.path.suffix)
            if loader is None:
                raise DataError(f"data.{split}.path={source.path}: use a .jsonl, .parquet or .csv file")
            options = {"encoding_errors": "replace"} if loader == "csv" else {}
            data = load_dataset(loader, data_files=str(source.path), split="train", **options)
    except (DatasetNotFoundError, DatasetGenerationError, OSError, ValueError) as error:
        place = source.hub or source.path
        reason = (str(error.__cause__ or error).strip().splitlines() or ["unknown"])[0]
        raise DataError(f"data.{split}: {place} cannot be read: {reason}") from error
    if isinstance(data, DatasetDict):
        raise DataError(f"data.{split}: {source.hub} has splits {', '.join(data)}: name one with split")
    yield from data


def _tokenise(
    row: Row, index: int, config: DataConfig, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
) -> Prompt | str:
    """One prompt, or the reason why the row is set aside."""
    messages, gold = _conversation(row, index, config)
    texts = [message["content"] for message in messages] + ([gold] if gold is not None else [])
    for text in texts:
        reason = _unusable(text, tokenizer)
        if reason is not None:
            return reason
    prompt_ids = tokenizer.encode(_render(messages, config, tokenizer), add_special_tokens=config.template != "chat")
    if len(prompt_ids) > config.max_prompt_tokens:
        return f"{len(prompt_ids)} prompt tokens, more than data.max_prompt_tokens={config.max_prompt_tokens}"
    gold_ids = None
    if gold is not None:
        gold_ids = (*tokenizer.encode(gold, add_special_tokens=False), tokenizer.eos_token_id)
        if len(gold_ids) > max_new_tokens:
            return f"{len(gold_ids)} response tokens, more than generation.max_new_tokens={max_new_tokens}"
    return Prompt(index, messages[-1]["content"], tuple(prompt_ids), gold_ids)


def _conversation(row: Row, index: int, config: DataConfig) -> tuple[list[dict[str, str]], str | None]:
    """The messages that make the prompt, and the gold answer if the row has one."""
    if config.messages_field is not None:
        messages = [{"role": m["role"], "content": m["content"]} for m in _field(row, index, config.messages_field)]
        gold = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else None
        if not messages:
            messages = [{"role": "user", "content": ""}]
    else:
        messages = [{"role": "user", "content": _field(row, index, config.prompt_field)}]
        gold = None if config.response_field is None else _field(row, index, config.response_field)
    if config.system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": config.system_prompt})
    return messages, gold


def _field(row: Row, index: int, name: str) -> Any:
    if name not in row:
        raise DataError(
            f"row {index} has no field {name!r}, only {', '.join(map(repr, row)) or 'none'}: "
            "set data.prompt_field, data.response_field or data.messages_field"
        )
    return row[name]


def _unusable(text: object, tokenizer: PreTrainedTokenizerBase) -> str | None:
    if not isinstance(text, str):
        return f"not text but {type(text).__name__}"
    if not text.strip():
        return "empty"
    if "\ufffd" in text or any("\ud800" <= char <= "\udfff" for char in text):
        return "invalid UTF-8"
    spelled = next((token for token in tokenizer.all_special_tokens if token in text), None)
    return None if spelled is None else f"special token {spelled} written as text"


def _render(messages: list[dict[str, str]], config: DataConfig, tokenizer: PreTrainedTokenizerBase) -> str:
    if config.template == "raw":
        return messages[-1]["content"]
    if config.template == "alpaca":
        return ALPACA.format(prompt=messages[-1]["content"])
    if not tokenizer.chat_template:
        raise DataError("data.template=chat but the teacher's tokenizer has no chat template: use alpaca or raw")
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


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
