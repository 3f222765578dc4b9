"""Plain text that stages learn in place of answers (`data.plain`), as windows of tokens.

A window is a sequence like any other: a prompt of one token, and the rest as its answer. So it is scored, kept and
trained on like gold answers. Texts are cut as those beside rollouts are (`student_train.feed.plain_text`).
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from configs import DataError
from configs.schema import DataConfig, PlainConfig
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.inputs.plain_text import why_refused
from orchestration.inputs.prompt_reader import control_tokens
from orchestration.inputs.prompts import Prompt, PromptSet, PromptTable, Rejected
from orchestration.inputs.rows import split_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREVIEW = 300
"""Characters of a text that was set aside which are kept beside the reason."""

Window = tuple[int, ...]


def with_plain(prompts: PromptSet, config: DataConfig, *, tokenizer: PreTrainedTokenizerBase) -> PromptSet:
    """The prompts of an experiment with the windows of its plain text, if it has any, and what of it was set aside.

    Raises:
        DataError: a split cannot be read, or has no usable text.
    """
    if config.plain is None:
        return prompts
    splits: dict[str, PromptTable] = {}
    rejected: list[Rejected] = []
    held_out: set[Window] = set()
    # What is held out first, so that nothing of it is learned.
    for name in ("dev", "train"):
        usable = PromptTable()
        for row, found in _texts(config.plain, name, tokenizer=tokenizer, held_out=held_out):
            if isinstance(found, Rejected):
                rejected.append(found)
            else:
                for window in found:
                    usable.append(Prompt(row, "", window[:1], window[1:]))
        if not usable:
            reasons = [each.reason for each in rejected if each.split == f"plain-{name}"]
            why = f"all {len(reasons)} were set aside, the first because: {reasons[0]}" if reasons else "there is none"
            raise DataError(f"data.plain.{name}: no usable text; {why}")
        splits[name] = usable
        if name == "dev":
            held_out = {prompt.prompt_ids + (prompt.gold_ids or ()) for prompt in usable}
    return replace(prompts, plain=splits, rejected=(*prompts.rejected, *rejected))


def _texts(
    config: PlainConfig, name: str, *, tokenizer: PreTrainedTokenizerBase, held_out: Set[Window]
) -> Iterator[tuple[int, list[Window] | Rejected]]:
    """The windows of every text of a split, or why it is set aside, each with the number of its row."""
    control = control_tokens(tokenizer)
    for number, row in split_rows(getattr(config, name), split=f"plain.{name}"):
        reason = row if isinstance(row, str) else why_refused(row, field=config.field, control=control)
        windows: list[Window] = []
        if reason is None and not isinstance(row, str):
            windows = _cut(row[config.field], tokenizer=tokenizer, max_tokens=config.max_tokens)
            if not windows:
                reason = "it has one token, so nothing follows from anything"
            elif not held_out.isdisjoint(windows):
                reason = "it stands in data.plain.dev too"
        if reason is None:
            yield number, windows
        else:
            shown = "" if isinstance(row, str) else str(row.get(config.field, ""))[:PREVIEW]
            yield number, Rejected(f"plain-{name}", number, visible(reason, at_most=REASON_CHARACTERS), shown)


def _cut(text: str, *, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Window]:
    """A text begins as the tokenizer has it and ends with its end token, if it has one."""
    ids: list[int] = tokenizer.encode(text, verbose=False)
    end = tokenizer.eos_token_id
    whole = ids if end is None or ids[-1:] == [end] else [*ids, end]
    # The model reads all tokens of a piece but the last.
    # It loads torch, which an experiment without plain text need not wait for.
    from student_train.feed.plain_text import PlainPieces

    pieces = PlainPieces.cut([whole], max_tokens=max_tokens - 1)
    return [tuple(pieces.record(at).token_ids.tolist()) for at in range(len(pieces.ends))]
