"""How a row becomes a prompt: its conversation, rendered by a template and tokenised, many rows at once.

Text that spells a special token is set aside, because the tokenizer would turn it into the control token itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from configs import ConfigError, DataError
from configs.schema import DataConfig
from configs.teachers import TeacherRoute
from configs.visible_text import REASON_CHARACTERS, visible
from orchestration.inputs.conversations import (
    MARKER,
    answer_within,
    messages_of,
    needed_fields,
    tools_of,
    unusable_message,
    unusable_parts,
    words_of,
)
from orchestration.inputs.prompts import Prompt
from orchestration.inputs.rows import Row
from orchestration.inputs.templates import ChatTemplates, Conversation, Unrendered
from orchestration.inputs.tokenizing import Ids, tokens_of_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_AT_ONCE = 512
"""Rows that are rendered and tokenised together."""

VALUE_CHARACTERS = 40
"""Of a value in a row that an error shows."""

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The instruction template of Stanford Alpaca (Taori et al. 2023), which MiniLLM and DistiLLM use as well."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation up to the answer, the answer if it is known, and the tools on offer."""

    messages: list[dict[str, Any]]
    answer: dict[str, Any] | None
    tools: list[Any] | None

    @property
    def all_messages(self) -> list[dict[str, Any]]:
        """Those of the prompt, and the answer."""
        return self.messages if self.answer is None else [*self.messages, self.answer]


@dataclass(frozen=True, slots=True)
class _Lot:
    """Some rows, what they say or why nothing, and what templates make of those that say something."""

    rows: list[tuple[int, Row | str]]
    talks: list[Talk | str]
    rendered: list[str | Unrendered]
    golds: list[str | Unrendered | None]

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True, slots=True)
class PromptReader:
    """Turns the rows of one split into prompts.

    `control` are the texts of the special tokens, `stop_ids` the ids that end an answer; None leaves answers alone.
    """

    split: str
    config: DataConfig
    tokenizer: PreTrainedTokenizerBase
    templates: ChatTemplates
    max_new_tokens: int
    control: tuple[str, ...]
    stop_ids: tuple[int, ...] | None
    route: TeacherRoute | None = None

    def prompts(self, rows: Iterable[tuple[int, Row | str]]) -> Iterator[tuple[int, Row | str, Prompt | str]]:
        """Each numbered row with its prompt, or the reason why it is set aside; in their order.

        Many rows are rendered and tokenised at once, which takes half the processor time of one after the other. While
        some are tokenised, a thread reads and renders the next ones: tokenizers and templates let it, for they compute
        outside of Python. No more than two lots of rows are there at a time.
        """
        rows = iter(rows)
        with ThreadPoolExecutor(1, thread_name_prefix="rows") as pool:
            coming = pool.submit(self._next_lot, rows)
            while lot := coming.result():
                coming = pool.submit(self._next_lot, rows)
                yield from self._tokenised(lot)

    def _next_lot(self, rows: Iterator[tuple[int, Row | str]]) -> _Lot:
        """The next rows, and what templates make of them."""
        chunk = list(islice(rows, ROWS_AT_ONCE))
        talks = [row if isinstance(row, str) else self._usable(row, index) for index, row in chunk]
        usable = [talk for talk in talks if isinstance(talk, Talk)]
        rendered = self._render_all(usable) if usable else []
        return _Lot(chunk, talks, rendered, self._golds(usable, rendered))

    def _tokenised(self, lot: _Lot) -> Iterator[tuple[int, Row | str, Prompt | str]]:
        ids = iter(self._encode_all([text for text in lot.rendered if isinstance(text, str)]))
        golds, texts = iter(self._gold_ids(lot.golds)), iter(lot.rendered)
        for (index, row), talk in zip(lot.rows, lot.talks, strict=True):
            if isinstance(talk, str) or isinstance(row, str):
                yield index, row, str(talk)
                continue
            text, gold = next(texts), next(golds)
            prompt_ids = next(ids) if isinstance(text, str) else ()
            refused = next((each for each in (text, gold) if isinstance(each, Unrendered)), None)
            if refused is not None:
                yield index, row, f"refused by the chat template: {refused}"
                continue
            assert not isinstance(gold, Unrendered)
            yield index, row, self._fitting(row, index, talk=talk, prompt_ids=prompt_ids, gold_ids=gold)

    def _fitting(self, row: Row, index: int, *, talk: Talk, prompt_ids: Ids, gold_ids: Ids | None) -> Prompt | str:
        """The prompt, or why it or its gold answer is not of a usable length."""
        limit = self.config.max_prompt_tokens
        if not prompt_ids:
            return "nothing is left of it as a prompt"
        if len(prompt_ids) > limit:
            return f"{len(prompt_ids)} prompt tokens, more than data.max_prompt_tokens={limit}"
        if gold_ids is not None and len(gold_ids) > self.max_new_tokens:
            return f"{len(gold_ids)} response tokens, more than generation.max_new_tokens={self.max_new_tokens}"
        teacher = None if self.route is None else self._routed(row, index, self.route)
        return Prompt(index, words_of(talk.messages[-1]), prompt_ids, gold_ids, teacher=teacher)

    def _usable(self, row: Row, index: int) -> Talk | str:
        talk = self.conversation(row, index)
        return talk if isinstance(talk, str) else self.why_unusable(talk) or talk

    def _routed(self, row: Row, index: int, route: TeacherRoute) -> str:
        if row.get(route.field) is None:
            raise ConfigError(
                f"combine.field={route.field}: row {index} of data.{self.split} has none: give every row one, or "
                "combine by kind: mixture"
            )
        value = str(row[route.field])
        if value not in route.to:
            raise ConfigError(
                f"combine.to has no teacher for {route.field}={visible(value, at_most=VALUE_CHARACTERS)!r}, which row "
                f"{index} of data.{self.split} has; it knows {', '.join(route.to)}: add it"
            )
        return route.to[value]

    def encode(self, rendered: str) -> Ids:
        """The tokens of a rendered prompt; a chat template writes the special ones itself."""
        (ids,) = self._encode_all([rendered])
        return ids

    def _encode_all(self, rendered: Sequence[str]) -> list[Ids]:
        return tokens_of_all(self.tokenizer, rendered, add_special_tokens=self.config.template != "chat")

    def conversation(self, row: Row, index: int) -> Talk | str:
        """The messages that make the prompt, and the gold answer if the row has one; or why there are none."""
        config = self.config
        answer: dict[str, Any] | None = None
        tools: list[Any] | None = None
        if config.messages_field is not None:
            messages = messages_of(self._field(row, index, config.messages_field))
            if isinstance(messages, str):
                return messages
            if messages[-1]["role"] == "assistant":
                answer = messages.pop()
            if not messages:
                return "no message before the assistant's"
            offered = None if config.tools_field is None else tools_of(self._field(row, index, config.tools_field))
            if isinstance(offered, str):
                return offered
            tools = offered
        else:
            messages = [{"role": "user", "content": self._field(row, index, config.prompt_field)}]
            if config.response_field is not None:
                gold = self._field(row, index, config.response_field)
                if gold is None:
                    return f"no {config.response_field}"
                answer = {"role": "assistant", "content": gold}
        if config.system_prompt is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": config.system_prompt})
        return Talk(messages, answer, tools)

    def why_unusable(self, talk: Talk) -> str | None:
        """Why what a row says cannot be a prompt, if it cannot."""
        for message in talk.all_messages:
            reason = unusable_message(message, control=self.control)
            if reason is not None:
                return reason
        if self.config.template != "chat":
            return None
        needed = needed_fields(talk.all_messages) | ({"tools"} if talk.tools else set())
        left_out = [field for field in sorted(needed) if self.templates.leaves_out(field, tools=talk.tools is not None)]
        if left_out:
            return (
                f"the chat template leaves out {left_out[0]}: take another, or remove it from the data if that is meant"
            )
        return unusable_parts(talk.tools, control=self.control)

    def _field(self, row: Row, index: int, name: str) -> Any:
        if name not in row:
            there = visible(", ".join(map(repr, row)) or "none", at_most=REASON_CHARACTERS)
            raise DataError(
                f"data.{self.split} row {index} has no field {name!r}, only {there}: "
                "set data.prompt_field, data.response_field, data.messages_field or data.tools_field"
            )
        return row[name]

    def render(self, talk: Talk) -> str:
        """The text of a prompt, up to where the model goes on.

        Raises:
            Unrendered: the chat template refuses it.
        """
        (text,) = self._render_all([talk])
        if isinstance(text, Unrendered):
            raise text
        return text

    def _render_all(self, talks: Sequence[Talk]) -> list[str | Unrendered]:
        if self.config.template == "raw":
            return [words_of(talk.messages[-1]) for talk in talks]
        if self.config.template == "alpaca":
            return [ALPACA.format(prompt=words_of(talk.messages[-1])) for talk in talks]
        return self.templates.render_all([Conversation(talk.messages, talk.tools) for talk in talks], opens_answer=True)

    def _golds(self, talks: Sequence[Talk], prompts: Sequence[str | Unrendered]) -> list[str | Unrendered | None]:
        """The text of each gold answer, behind its rendered prompt; None where there is no answer or prompt."""
        if self.stop_ids is None:
            return [None] * len(talks)
        known = {
            at: (talk, prompt)
            for at, (talk, prompt) in enumerate(zip(talks, prompts, strict=True))
            if talk.answer is not None and isinstance(prompt, str)
        }
        texts = dict(zip(known, self._answers([*known.values()]), strict=True))
        return [texts.get(at) for at in range(len(talks))]

    def _gold_ids(self, golds: Sequence[str | Unrendered | None]) -> list[Ids | Unrendered | None]:
        """The tokens of each gold answer."""
        written = [text for text in golds if isinstance(text, str)]
        ids = iter(tokens_of_all(self.tokenizer, written, add_special_tokens=False))
        return [self._ended(next(ids)) if isinstance(text, str) else text for text in golds]

    def _answers(self, told: Sequence[tuple[Talk, str]]) -> list[str | Unrendered]:
        """The gold answer of each as the template writes it, with what stands behind it."""
        if self.config.template != "chat" or not told:
            return [words_of(talk.answer or {}) for talk, _ in told]
        wholes = self.templates.render_all(
            [Conversation(talk.all_messages, talk.tools) for talk, _ in told], opens_answer=False
        )
        return [
            whole if isinstance(whole, Unrendered) else self._answer(talk, prompt, whole)
            for (talk, prompt), whole in zip(told, wholes, strict=True)
        ]

    def _answer(self, talk: Talk, prompt: str, whole: str) -> str | Unrendered:
        """What of a whole rendered conversation is the answer."""
        assert talk.answer is not None
        if whole.startswith(prompt):
            text: str | None = whole[len(prompt) :]
        else:
            last = [*talk.messages, {"role": "assistant", "content": MARKER}]
            (marked,) = self.templates.render_all([Conversation(last, talk.tools)], opens_answer=False)
            if isinstance(marked, Unrendered):
                return marked
            text = answer_within(whole, answer=talk.answer, marked=marked)
        if text is None:
            return Unrendered("it does not write the answer behind the prompt")
        # Blanks and line feeds are the template's when the answer itself does not end with them.
        return text if text.endswith(words_of(talk.answer)) else text.rstrip()

    def _ended(self, ids: Ids) -> Ids:
        """The tokens of an answer up to the one that ends its turn."""
        last = next((at for at, token in enumerate(ids) if token in (self.stop_ids or ())), None)
        if last is not None:
            return ids[: last + 1]
        written = self.tokenizer.convert_ids_to_tokens(ids[-1]) if ids else None
        if written in self.control:
            raise DataError(
                f"data.{self.split}: the teacher's chat template ends an answer with {written}, at which the teacher "
                f"does not stop: add its id {ids[-1]} to eos_token_id in the teacher's generation_config.json"
            )
        end = self.tokenizer.eos_token_id
        if end is None:
            raise DataError(
                "gold answers end with the end-of-sequence token, which the teacher's tokenizer does not have: "
                "unset data.response_field, or use a teacher that has one"
            )
        return (*ids, end)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that the tokenizer would turn into control tokens: also those that have no name such as EOS."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens)))
