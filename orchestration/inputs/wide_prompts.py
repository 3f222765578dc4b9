"""What the teacher reads where it is shown more than its students (`teacher_context`): wide prompts beside theirs.

The layout is fixed. In front of everything stands the system prompt, before one that the row or `data.system_prompt`
has; then the worked examples, whole, as conversations that end with their gold answers (without a chat template: as
prompts with the answers behind them). In the last message of the user stand, before its own words and each after a line
that names it, the passage, the rows before and the rows after:

    Passage:
    <passage>

    Before:
    <row>

    After:
    <row>

    <the row's own words>

A neighbour is shown by the last words of its user, an example as students see it, without a passage of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from configs import ConfigError, DataError, DistillConfig
from configs.teacher_context import TeacherContext
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.inputs.context_rows import Around, DrawnExamples, draw_examples, neighbours_of
from orchestration.inputs.conversations import unusable, words_of
from orchestration.inputs.prompt_reader import PromptReader, Talk, control_tokens
from orchestration.inputs.prompts import Prompt, PromptSet, PromptTable, Rejected, preview, why_empty
from orchestration.inputs.rows import Row, split_rows
from orchestration.inputs.templates import ChatTemplates, Unrendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEY = "teacher_context"


@dataclass(frozen=True, slots=True)
class Widened:
    """The prompts with what the teacher reads of each, and what has to be said of it."""

    prompts: PromptSet
    said: tuple[str, ...] = ()


def with_context(prompts: PromptSet, config: DistillConfig, *, tokenizer: PreTrainedTokenizerBase) -> Widened:
    """Render what the teacher reads of every usable row, where it is shown more; rows too long for it are set aside.

    Raises:
        ConfigError: the context cannot be used: its own text, or more of it than the teacher reads.
        DataError: a field is missing, too few rows can be examples, a split has no row left, or the teacher would read
            the same of two rows that students read apart.
    """
    if config.teacher_context is None:
        return Widened(prompts)
    with ExitStack() as opened:
        templates = opened.enter_context(ChatTemplates(config.data, tokenizer))
        wide = _WidePrompts(config, config.teacher_context, tokenizer, templates, prompts)
        splits: dict[str, PromptTable] = {}
        rejected: list[Rejected] = []
        for name in prompts.splits:
            kept = splits[name] = PromptTable()
            for outcome in wide.of_split(name):
                if isinstance(outcome, Prompt):
                    kept.append(outcome)
                else:
                    rejected.append(outcome)
            if not kept:
                raise DataError(f"data.{name}: no usable row with {KEY}; {why_empty(name, rejected)}")
    _refuse_ambiguous(splits)
    made = replace(prompts, splits=splits, rejected=(*prompts.rejected, *rejected))
    return Widened(made, (_in_words(splits, set_aside=len(rejected)),))


class _WidePrompts:
    """Renders the wide prompts of an experiment."""

    def __init__(
        self,
        config: DistillConfig,
        context: TeacherContext,
        tokenizer: PreTrainedTokenizerBase,
        templates: ChatTemplates,
        prompts: PromptSet,
    ) -> None:
        self._config, self._context, self._prompts = config, context, prompts
        self._tokenizer, self._templates, self._control = tokenizer, templates, control_tokens(tokenizer)
        self._shown: dict[int, Talk] = {}
        self._drawn: DrawnExamples | None = None
        self._require_system()
        if context.examples is not None:
            self._draw()
        self._require_room()

    def of_split(self, name: str) -> Iterator[Prompt | Rejected]:
        """The usable rows of a split, each with what the teacher reads of it or why it is set aside."""
        reader = self._reader(name)
        usable = {prompt.row: prompt for prompt in self._prompts.splits[name]}
        rows = dict(split_rows(self._config.data.splits[name], split=name))
        talks = {index: talk for index, row in rows.items() if (talk := _talk(reader, row, index)) is not None}
        around = self._around(rows, talks, split=name)
        for index, prompt in usable.items():
            row = rows[index]
            assert not isinstance(row, str)
            outcome = self._wide(reader, row, prompt, talks=talks, around=around.get(index, Around()))
            if isinstance(outcome, str):
                yield Rejected(name, index, visible(outcome, at_most=REASON_CHARACTERS), preview(row))
            else:
                yield replace(prompt, wide_ids=outcome)

    def _reader(self, split: str) -> PromptReader:
        config = self._config
        return PromptReader(split, config.data, self._tokenizer, self._templates, 0, self._control, None)

    def _require_system(self) -> None:
        """Refuse a system prompt that would be set aside in a row."""
        if self._context.system_prompt is not None:
            reason = unusable(self._context.system_prompt, control=self._control)
            if reason is not None:
                raise ConfigError(f"{KEY}.system_prompt cannot be used: {reason}; write it otherwise")

    def _draw(self) -> None:
        assert self._context.examples is not None
        contents: dict[int, Hashable] = {p.row: p.prompt_ids for p in self._prompts.splits["train"] if p.gold_ids}
        reader = self._reader("train")
        talks = {
            index: talk
            for index, row in split_rows(self._config.data.splits["train"], split="train")
            # Tools are offered to a whole conversation, and an example's are not the row's.
            if index in contents and (talk := _talk(reader, row, index)) is not None and talk.tools is None
        }
        self._drawn = draw_examples({index: contents[index] for index in talks}, self._context.examples)
        self._shown = {index: talks[index] for index in (*self._drawn.shown.values(), self._drawn.spare)}

    def _require_room(self) -> None:
        """Refuse a context that fills the teacher before any row has a word: its texts alone, without any template."""
        drawn = () if self._drawn is None else tuple(self._drawn.shown.values())
        texts = [words_of(message) for index in drawn for message in self._shown[index].all_messages]
        texts += [] if self._context.system_prompt is None else [self._context.system_prompt]
        fixed = sum(len(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        if fixed > self._config.longest_context:
            raise ConfigError(
                f"{KEY}: its system prompt and examples have {fixed:,} tokens, and {self._limit} leave the teacher "
                f"{self._config.longest_context:,} for a prompt: shorten the first, lower examples.count, or raise "
                "max_model_len"
            )

    @property
    def _limit(self) -> str:
        config = self._config
        answers = max(config.generation.max_new_tokens, config.evaluation.max_new_tokens or 0)
        limit = config.runtime.teacher_engine.max_model_len
        return f"runtime.teacher_engine.max_model_len={limit} - max_new_tokens={answers} - 1"

    def _around(self, rows: Mapping[int, Row | str], talks: Mapping[int, Talk], *, split: str) -> Mapping[int, Around]:
        if self._context.neighbours is None:
            return {}
        readable = {index: row for index, row in rows.items() if index in talks and not isinstance(row, str)}
        return neighbours_of(readable, self._context.neighbours, split=split)

    def _wide(
        self, reader: PromptReader, row: Row, prompt: Prompt, *, talks: Mapping[int, Talk], around: Around
    ) -> tuple[int, ...] | str:
        """The tokens that the teacher reads of a row, or why it is set aside."""
        passage = None
        if self._context.passage_field is not None:
            passage = _passage(row, prompt.row, self._context.passage_field, split=reader.split)
            reason = unusable(passage, control=self._control)
            if reason is not None:
                return f"{KEY}.passage_field={self._context.passage_field}: {reason}"
        before, after = ([words_of(_last_user(talks[n])) for n in each] for each in (around.before, around.after))
        talk = talks[prompt.row]
        asked = _last_user(talk)
        if not asked and (passage is not None or before or after):
            return f"no message of the user for {KEY} to stand in"
        shown = _with_words(talk, asked, laid_out(words_of(asked), passage=passage, before=before, after=after))
        try:
            ids = reader.encode(self._rendered(reader, shown, prompt))
        except Unrendered as error:
            return f"refused by the chat template with {KEY}: {error}"
        if len(ids) > self._config.longest_context:
            return (
                f"{len(ids):,} prompt tokens with {KEY}, and {self._limit} leave the teacher "
                f"{self._config.longest_context:,}"
            )
        return tuple(ids)

    def _rendered(self, reader: PromptReader, talk: Talk, prompt: Prompt) -> str:
        examples = [] if self._drawn is None else [self._shown[n] for n in self._drawn.shown_to(prompt.prompt_ids)]
        system = self._context.system_prompt
        if self._config.data.template == "chat":
            return reader.render(replace(talk, messages=_in_chat(talk.messages, examples, system=system)))
        blocks = [] if system is None else [system]
        blocks += [reader.render(example) + words_of(example.answer or {}) for example in examples]
        return "\n\n".join([*blocks, reader.render(talk)])


def laid_out(words: str, *, passage: str | None, before: Sequence[str], after: Sequence[str]) -> str:
    """What the user says to the teacher: what it is shown of a passage and of other rows, then the row's own words."""
    named = {"Passage": [] if passage is None else [passage], "Before": before, "After": after}
    return "".join(f"{name}:\n" + "\n".join(texts) + "\n\n" for name, texts in named.items() if texts) + words


def _in_chat(
    messages: Sequence[dict[str, Any]], examples: Sequence[Talk], *, system: str | None
) -> list[dict[str, Any]]:
    own = messages[:1] if messages[0]["role"] == "system" else []
    said = [*([] if system is None else [system]), *(words_of(message) for message in own)]
    first = [{"role": "system", "content": "\n\n".join(said)}] if said else []
    turns = [message for example in examples for message in example.all_messages if message["role"] != "system"]
    return [*first, *turns, *messages[len(own) :]]


def _talk(reader: PromptReader, row: Row | str, index: int) -> Talk | None:
    """What a row says, if it can be shown."""
    talk = row if isinstance(row, str) else reader.conversation(row, index)
    return None if isinstance(talk, str) or reader.why_unusable(talk) is not None else talk


def _last_user(talk: Talk) -> Mapping[str, Any]:
    """The last message of the user; an empty one where there is none."""
    return next((message for message in reversed(talk.messages) if message["role"] == "user"), {})


def _with_words(talk: Talk, message: Mapping[str, Any], words: str) -> Talk:
    changed = [{**each, "content": words} if each is message else each for each in talk.messages]
    return replace(talk, messages=changed)


def _passage(row: Row, index: int, field: str, *, split: str) -> Any:
    if field not in row:
        there = visible(", ".join(map(repr, row)) or "none", at_most=REASON_CHARACTERS)
        raise DataError(f"data.{split} row {index} has no field {field!r}, only {there}: correct {KEY}.passage_field")
    return row[field]


def _refuse_ambiguous(splits: Mapping[str, Sequence[Prompt]]) -> None:
    """Refuse rows that are one to the teacher and two to students: which of them it answered could not be told."""
    seen: dict[tuple[int, ...], tuple[str, Prompt]] = {}
    for name, prompts in splits.items():
        for prompt in prompts:
            other, first = seen.setdefault(prompt.asked_ids, (name, prompt))
            if first.prompt_ids != prompt.prompt_ids:
                raise DataError(
                    f"data.{name} row {prompt.row} and data.{other} row {first.row} are different prompts, but with "
                    f"{KEY} the same: remove one of them"
                )


def _in_words(splits: Mapping[str, Sequence[Prompt]], *, set_aside: int) -> str:
    added = [len(prompt.asked_ids) - len(prompt.prompt_ids) for rows in splits.values() for prompt in rows]
    aside = f"; {set_aside:,} rows set aside for it" if set_aside else ""
    return (
        f"The teacher's context adds {sum(added) / len(added):,.0f} tokens to a prompt, {max(added):,} at most{aside}. "
        "Students never see it."
    )
