"""From rows of data to token ids: after this module only ids exist.

Rows come from `orchestration.inputs.rows`, and `orchestration.inputs.prompt_reader` turns them into prompts. A row that
cannot be used is set aside with its reason; a file that cannot be used is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache.canonical import shared
from configs import DataError
from configs.schema import DataConfig
from configs.teachers import TeacherRoute
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.inputs.prompt_reader import ROWS_AT_ONCE, PromptReader, control_tokens
from orchestration.inputs.prompts import Prompt, PromptSet, PromptTable, Rejected, preview, tokens_digest, why_empty
from orchestration.inputs.rows import split_rows
from orchestration.inputs.templates import ChatTemplates
from orchestration.inputs.tokenizing import Ids, tokenizing_on_all_cores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RowsRead = Callable[[str, int], None]
"""Who is told of which split how many rows are read."""


def load_prompts(
    config: DataConfig,
    *,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    route: TeacherRoute | None = None,
    progress: RowsRead = lambda split, rows: None,
) -> PromptSet:
    """Load, render and tokenise every split; `stop_ids` are those at which the teacher ends an answer.

    `progress` is told of which split how many rows are read.

    Raises:
        ConfigError: a row says nothing by which `route` sends it to a teacher.
        DataError: a split cannot be read, has no usable row, lacks the field, or repeats a prompt of another split; or
            the chat template cannot be used.
    """
    splits: dict[str, PromptTable] = {}
    rejected: list[Rejected] = []
    control = control_tokens(tokenizer)
    with tokenizing_on_all_cores(), ChatTemplates(config, tokenizer) as templates:
        for name, source in config.splits.items():
            reader = PromptReader(name, config, tokenizer, templates, max_new_tokens, control, stop_ids, route)
            usable = PromptTable()
            for index, row, outcome in reader.prompts(split_rows(source, split=name)):
                if isinstance(outcome, Prompt):
                    usable.append(outcome)
                else:
                    # A template or the data may have worded it.
                    reason = visible(outcome, at_most=REASON_CHARACTERS)
                    rejected.append(Rejected(name, index, reason, preview(row)))
                if index % ROWS_AT_ONCE == 0:
                    progress(name, index)
            if not usable:
                raise DataError(f"data.{name}: no usable row; {why_empty(name, rejected)}")
            splits[name] = usable
    _refuse_overlap(splits)
    return PromptSet(splits, tuple(rejected))


def render_prompts(
    config: DataConfig, *, tokenizer: PreTrainedTokenizerBase, whose: str
) -> dict[str, dict[int, Ids | str]]:
    """The prompts of every split in the tokens of another model, or the reason why there is none, by row.

    `whose` names the model for people. Answers are not looked at, and nothing is held against other rows.

    Raises:
        DataError: a split cannot be read, or the chat template cannot be used.
    """
    with rendering(config, tokenizer=tokenizer, whose=whose) as rows_of:
        return {name: dict(rows_of(name)) for name in config.splits}


@contextmanager
def rendering(
    config: DataConfig, *, tokenizer: PreTrainedTokenizerBase, whose: str
) -> Iterator[Callable[[str], Iterator[tuple[int, Ids | str]]]]:
    """What renders a split as `render_prompts` does, row after row in the order of the file, and holds none."""
    control = control_tokens(tokenizer)

    def rows_of(name: str) -> Iterator[tuple[int, Ids | str]]:
        reader = PromptReader(name, config, tokenizer, templates, 0, control, None)
        for index, _, outcome in reader.prompts(split_rows(config.splits[name], split=name)):
            if isinstance(outcome, Prompt):
                yield index, shared(outcome.prompt_ids)
            else:
                yield index, visible(outcome, at_most=REASON_CHARACTERS)

    with tokenizing_on_all_cores(), ChatTemplates(config, tokenizer, student=whose) as templates:
        yield rows_of


def _refuse_overlap(splits: Mapping[str, Sequence[Prompt]]) -> None:
    """Refuse a prompt in two splits. The largest is looked through and not looked up, so that it takes no memory."""
    largest = max(splits, key=lambda name: len(splits[name]))
    seen: dict[bytes, tuple[str, int]] = {}
    for name, prompts in splits.items():
        for prompt in prompts if name != largest else ():
            other = seen.setdefault(tokens_digest(prompt.prompt_ids), (name, prompt.row))
            if other[0] != name:
                raise _same_prompt((name, prompt.row), other)
    order = list(splits)
    for prompt in splits[largest]:
        found = seen.get(tokens_digest(prompt.prompt_ids))
        if found is not None:
            both = sorted([found, (largest, prompt.row)], key=lambda each: order.index(each[0]))
            raise _same_prompt(both[1], both[0])


def _same_prompt(later: tuple[str, int], earlier: tuple[str, int]) -> DataError:
    return DataError(
        f"data.{later[0]} row {later[1]} is the same prompt as data.{earlier[0]} row {earlier[1]}: "
        "remove it from one split, or held-out numbers mean nothing"
    )
