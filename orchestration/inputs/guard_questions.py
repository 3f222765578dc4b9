"""How a model that guards another one is asked (`configs.screening.GuardConfig`): the tokens of its questions.

It is given a conversation by its own chat template, as guards are trained to read, or a question in words of the
configuration. Its verdict is the first token behind that: how likely it is one of those that mean unsafe, beside those
that mean safe. So every word has to begin with a token of its own, which is looked at before anything is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from cache import TeacherRecord
from configs import ConfigError, DataError
from configs.data import TEMPLATE_DATE
from configs.screening import GuardConfig
from configs.visible_text import first_line
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.templates import ChatTemplates, Conversation, Unrendered

K = 20
"""Log-probabilities of its first token; a word that is not among them is as good as not said."""

ROOM = 1
"""Tokens that it writes."""

TRIED = Exchange.of("Good morning.", "Good morning to you.")
"""What every guard can be asked about."""


@dataclass(frozen=True, slots=True)
class GuardTemplate:
    """What is said of its chat template (`orchestration.inputs.templates.TemplateSettings`)."""

    template_kwargs: Mapping[str, Any] | None
    max_prompt_tokens: int
    chat_template: str | None = None
    date_of_templates: date = TEMPLATE_DATE


class GuardQuestions:
    """The questions to one guard, in its tokens."""

    def __init__(self, config: GuardConfig, files: ModelFiles) -> None:
        """Look whether it can be asked in this way.

        Raises:
            ConfigError: it has no chat template, reads less than it is to be given, or cannot begin its answer with a
                word.
        """
        self._config, self._files = config, files
        positions = files.shape.max_positions
        if config.max_tokens + ROOM > positions:
            raise ConfigError(
                f"content.guard.max_tokens={config.max_tokens} and {files.label} reads {positions} tokens, its answer "
                f"among them: lower it to {positions - ROOM} or less"
            )
        for exchange in (Exchange(TRIED.turns[:1]), TRIED):
            text = self.texts([exchange])[0]
            if isinstance(text, Unrendered):
                raise ConfigError(
                    f"content.guard: the chat template of {files.label} takes no conversation ({text}): set "
                    "content.guard.ask_prompt and ask_answer, what it is asked in words"
                )
            unsafe, safe = (self._firsts(words, behind=text) for words in (config.unsafe, config.safe))
            self._require_apart(unsafe, safe)
            self.unsafe, self.safe = tuple(unsafe.values()), tuple(safe.values())

    def tokens(self, exchanges: Sequence[Exchange]) -> list[tuple[int, ...] | None]:
        """What the guard reads of each; None where it cannot be asked, because that is too long for it."""
        texts = self.texts(exchanges)
        read = [None if isinstance(text, Unrendered) else self._ids(text) for text in texts]
        return [None if ids is None or len(ids) > self._config.max_tokens else ids for ids in read]

    def verdict(self, record: TeacherRecord) -> float | None:
        """How likely it is that the guard means unsafe, by the first token of its answer; None if it means neither."""
        assert record.topk_ids is not None and record.topk_logprobs is not None
        said = dict(zip(record.topk_ids[0].tolist(), np.exp(record.topk_logprobs[0].astype(np.float64)), strict=True))
        unsafe, safe = (float(sum(said.get(each, 0.0) for each in ids)) for ids in (self.unsafe, self.safe))
        return unsafe / (unsafe + safe) if unsafe + safe > 0.0 else None

    def texts(self, exchanges: Sequence[Exchange]) -> list[str | Unrendered]:
        """What the guard is given of each, up to its verdict.

        Raises:
            ConfigError: its chat template cannot be used.
        """
        config = self._config
        messages = [self._messages(each) for each in exchanges]
        if config.template == "raw":
            return [said[0]["content"] + config.begins for said in messages]
        settings = GuardTemplate(config.template_kwargs, config.max_tokens)
        try:
            with ChatTemplates(settings, self._files.tokenizer) as templates:
                found = templates.render_all([Conversation(each, None) for each in messages], opens_answer=True)
        except DataError as error:
            raise ConfigError(
                f"content.guard: the chat template of {self._files.label} cannot be used ({_of_guard(error)}): correct "
                "content.guard.template_kwargs, or set content.guard.template: raw with ask_prompt and ask_answer"
            ) from error
        return [each if isinstance(each, Unrendered) else each + config.begins for each in found]

    def _messages(self, exchange: Exchange) -> list[dict[str, str]]:
        """The conversation itself, or one question about it."""
        asked = self._config.ask_answer if exchange.is_answer else self._config.ask_prompt
        if asked is None:
            return [{"role": who, "content": text} for who, text in exchange.turns]
        # In one pass: a prompt that says {answer} is no place for one.
        parts = {"{prompt}": exchange.prompt, "{answer}": exchange.answer}
        return [{"role": "user", "content": _filled(asked, parts)}]

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self._files.tokenizer.encode(text, add_special_tokens=False))
        bos = self._files.leading_bos
        return ids if bos is None or ids[:1] == (bos,) else (bos, *ids)

    def _firsts(self, words: Sequence[str], *, behind: str) -> dict[str, int]:
        """The token that begins each word where an answer begins."""
        before = self._ids(behind)
        found = {}
        for word in words:
            ids = self._ids(behind + word)
            if len(ids) <= len(before) or ids[: len(before)] != before or ids[len(before)] == self._unknown:
                raise ConfigError(
                    f"content.guard: the tokenizer of {self._files.label} writes {word!r} not as a token of its own "
                    "behind the question: name the word as its answer begins (with or without a leading space), or set "
                    "content.guard.begins to what stands before it"
                )
            found[word] = ids[len(before)]
        return found

    def _require_apart(self, unsafe: Mapping[str, int], safe: Mapping[str, int]) -> None:
        for word, token in unsafe.items():
            other = next((each for each, first in safe.items() if first == token), None)
            if other is not None:
                raise ConfigError(
                    f"content.guard: {word!r} and {other!r} begin with the same token of {self._files.label}, which "
                    "then says nothing: name words that begin differently, or set content.guard.begins to what they "
                    "share"
                )

    @property
    def _unknown(self) -> int | None:
        unknown: int | None = self._files.tokenizer.unk_token_id
        return unknown


def _filled(asked: str, parts: Mapping[str, str]) -> str:
    """A question with what is judged in its places."""
    found, rest = [], asked
    while rest:
        at, name = min(((rest.find(name), name) for name in parts if name in rest), default=(-1, ""))
        if at < 0:
            break
        found += [rest[:at], parts[name]]
        rest = rest[at + len(name) :]
    return "".join([*found, rest])


def _of_guard(error: DataError) -> str:
    """Why a template cannot be used, without the keys that are about the teacher's."""
    return first_line(error).removeprefix("data.template=chat").lstrip(": ").partition(": mend it")[0]
