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

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.rows import JoinedRows, Positions, SpilledRows
from configs import ConfigError, DataError, DistillConfig
from configs.teacher_context import TeacherContext
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.inputs.context_rows import DrawnExamples, Nearby, Said, draw_examples, neighbours_of
from orchestration.inputs.conversations import unusable, words_of
from orchestration.inputs.prompt_reader import PromptReader, Talk, control_tokens
from orchestration.inputs.prompts import (
    DIGEST,
    Prompt,
    PromptSet,
    PromptTable,
    Rejected,
    preview,
    tokens_digest,
    why_empty,
)
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
        reader, nearby = self._reader(name), self._nearby(name)
        for row, prompt in self._usable(name):
            outcome = self._wide(reader, row, prompt, around=nearby.around(prompt.row))
            if isinstance(outcome, str):
                yield Rejected(name, prompt.row, visible(outcome, at_most=REASON_CHARACTERS), preview(row))
            else:
                yield replace(prompt, wide_ids=outcome)

    def _usable(self, name: str) -> Iterator[tuple[Row, Prompt]]:
        """The rows of a split that are prompts, each with its prompt. They are read anew, and none is held."""
        prompts = iter(self._prompts.splits[name])
        prompt = next(prompts, None)
        for index, row in split_rows(self._config.data.splits[name], split=name):
            if prompt is not None and index == prompt.row:
                assert not isinstance(row, str)
                yield row, prompt
                prompt = next(prompts, None)
        assert prompt is None, "prompts stand in the order of their rows"

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
        reader, rows, places = self._reader("train"), array("q"), array("q")
        for place, (row, prompt) in enumerate(self._usable("train")):
            # Tools are offered to a whole conversation, and an example's are not the row's.
            if prompt.gold_ids and (talk := _talk(reader, row, prompt.row)) is not None and talk.tools is None:
                rows.append(prompt.row)
                places.append(place)
        contents = _Contents(self._prompts.splits["train"], rows, places)
        self._drawn = draw_examples(contents, self._context.examples)
        wanted = {*self._drawn.shown.values(), self._drawn.spare}
        for row, prompt in self._usable("train"):
            if prompt.row in wanted:
                talk = _talk(reader, row, prompt.row)
                assert talk is not None
                self._shown[prompt.row] = talk

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

    def _nearby(self, split: str) -> Nearby:
        """Who stands around the rows of a split, and what they say: nobody unless neighbours are shown."""
        if self._context.neighbours is None:
            return Nearby()
        reader, words = self._reader(split), SpilledRows()

        def readable() -> Iterator[tuple[int, Row]]:
            for index, row in split_rows(self._config.data.splits[split], split=split):
                talk = _talk(reader, row, index)
                if talk is not None and not isinstance(row, str):
                    words.append(words_of(_last_user(talk)).encode("utf-8", "surrogatepass"))
                    yield index, row

        return Nearby(neighbours_of(readable(), self._context.neighbours, split=split), words)

    def _wide(self, reader: PromptReader, row: Row, prompt: Prompt, *, around: Said) -> tuple[int, ...] | str:
        """The tokens that the teacher reads of a row, or why it is set aside."""
        passage = None
        if self._context.passage_field is not None:
            passage = _passage(row, prompt.row, self._context.passage_field, split=reader.split)
            reason = unusable(passage, control=self._control)
            if reason is not None:
                return f"{KEY}.passage_field={self._context.passage_field}: {reason}"
        talk = _talk(reader, row, prompt.row)
        assert talk is not None, "it was made a prompt"
        asked, before, after = _last_user(talk), around.before, around.after
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


class _Contents(Mapping[int, Hashable]):
    """What rows of train ask, by their numbers: they stand at `places` of the prompts, which are not held."""

    def __init__(self, prompts: Sequence[Prompt], rows: Sequence[int], places: Sequence[int]) -> None:
        self._prompts, self._rows, self._places = prompts, rows, places

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __getitem__(self, row: int) -> Hashable:
        return self._prompts[self._places[bisect_left(self._rows, row)]].prompt_ids


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
    """Refuse rows that are one to the teacher and two to students: which of them it answered could not be told.

    Takes 32 bytes of memory a row, and as much again while they are sorted.
    """
    asked, own = bytearray(), bytearray()
    for prompt in JoinedRows([*splits.values()]):
        asked += tokens_digest(prompt.asked_ids)
        own += tokens_digest(prompt.prompt_ids)
    first = _first_alike(np.frombuffer(asked, dtype=DIGEST))
    students = np.frombuffer(own, dtype=DIGEST)
    apart = np.flatnonzero(students != students[first])
    if len(apart):
        (name, prompt), (other, earlier) = (_found(splits, int(at)) for at in (apart[0], first[apart[0]]))
        raise DataError(
            f"data.{name} row {prompt.row} and data.{other} row {earlier.row} are different prompts, but with {KEY} "
            "the same: remove one of them"
        )


def _first_alike(digests: NDArray[np.bytes_]) -> Positions:
    """For each digest the position of the first that is equal to it."""
    order = np.argsort(digests, kind="stable")
    new = np.ones(len(order), dtype=bool)
    new[1:] = digests[order[1:]] != digests[order[:-1]]
    begins = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    first = np.empty_like(order)
    first[order] = order[begins]
    return first


def _found(splits: Mapping[str, Sequence[Prompt]], at: int) -> tuple[str, Prompt]:
    """The prompt at a position of all splits one behind the other, with its split."""
    for name, prompts in splits.items():
        if at < len(prompts):
            return name, prompts[at]
        at -= len(prompts)
    raise IndexError(at)


def _in_words(splits: Mapping[str, Sequence[Prompt]], *, set_aside: int) -> str:
    count = total = most = 0
    for prompt in JoinedRows([*splits.values()]):
        added = len(prompt.asked_ids) - len(prompt.prompt_ids)
        count, total, most = count + 1, total + added, max(most, added)
    aside = f"; {set_aside:,} rows set aside for it" if set_aside else ""
    return (
        f"The teacher's context adds {total / count:,.0f} tokens to a prompt, {most:,} at most{aside}. Students never "
        "see it."
    )
