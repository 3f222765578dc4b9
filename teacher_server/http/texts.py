"""Text and conversations to token ids and back, by the teacher's own tokenizer.

A text that spells a special token is refused: the tokenizer would turn it into the control token itself, and whoever
writes a message could write a turn of somebody else's. Who means the control token gives token ids.

The chat template is the teacher's, and runs in this process: a door whose operator does not trust the template of a
model serves it without texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jinja2 import TemplateError

from configs.errors import DistillError
from configs.visible_text import first_line
from teacher_server.http.bodies import ChatMessage
from teacher_server.http.pieces import Pieces, Spelling


class TextError(DistillError, ValueError):
    """A text that cannot become tokens; why."""


class Tokenizer(Protocol):
    """What is needed of a tokenizer of transformers."""

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Special tokens that have a name such as EOS."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Added tokens by id, each with `content` and whether it is `special`."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of ids."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: Any
    ) -> str:
        """A conversation as text."""
        ...


class Texts:
    """The tokenizer of one teacher, for many threads: it is used by one of them at a time.

    Args:
        tokenizer: The teacher's.
        stop_ids: Those at which the teacher ends an answer.
        template_variables: Further variables of its chat template (`enable_thinking`), or the name of one of several
            (`chat_template`).
        spelling: The bytes of its tokens; without it each is decoded by itself.

    Attributes:
        pieces: What its tokens stand for, one by one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop_ids: Sequence[int] = (),
        template_variables: Mapping[str, Any] | None = None,
        spelling: Spelling | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._variables = dict(template_variables or {})
        names = {at: token.content for at, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._control = control_tokens(tokenizer)
        # A tokenizer of transformers remembers settings between calls, and refuses to be called twice at once.
        self._lock = threading.Lock()
        self.pieces = Pieces(
            self._decoded if spelling is None else _looked_up(spelling.tokens),
            names=names,
            blank_first=spelling is not None and spelling.blank_first,
        )

    def prompt(self, text: str) -> tuple[int, ...]:
        """The ids of a text, with the special tokens that the tokenizer puts around one.

        Raises:
            TextError: it spells a special token.
        """
        return self._encode(require_plain(text, control=self._control), add_special_tokens=True)

    def completed(self, prompt: str, completion: str) -> tuple[tuple[int, ...], int]:
        """The ids of a text and what follows it, each tokenised by itself, and how many are the prompt's.

        Raises:
            TextError: either spells a special token.
        """
        before = self.prompt(prompt)
        after = require_plain(completion, control=self._control)
        return before + self._encode(after, add_special_tokens=False), len(before)

    def conversation(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The ids of a conversation, up to where the teacher goes on.

        Raises:
            TextError: a message spells a special token, or the chat template refuses them.
        """
        return self._encode(self._render(messages, opens_answer=True), add_special_tokens=False)

    def answered(self, messages: Sequence[ChatMessage]) -> tuple[tuple[int, ...], int]:
        """The ids of a conversation with the answer at its end, and how many stand before the answer.

        The answer ends with the token at which the teacher would have ended it, where the template writes one.

        Raises:
            TextError: see `conversation`; or the last message is not the assistant's, or the template does not write it
                behind the prompt.
        """
        if messages[-1].role != "assistant":
            raise TextError(f"the last message is of the role {messages[-1].role}, not of the assistant that is scored")
        opened = self._render(messages[:-1], opens_answer=True)
        whole = self._render(messages, opens_answer=False)
        if not whole.startswith(opened):
            raise TextError("the chat template does not write the answer behind the prompt: give token_ids")
        answer, words = whole[len(opened) :], messages[-1].content
        # Blanks and line feeds are the template's when the answer itself does not end with them.
        ids = self._encode(answer if answer.endswith(words) else answer.rstrip(), add_special_tokens=False)
        end = next((at for at, token in enumerate(ids, 1) if token in self._stop_ids), len(ids))
        before = self._encode(opened, add_special_tokens=False)
        return before + ids[:end], len(before)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        with self._lock:
            return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def _decoded(self, token: int) -> bytes:
        return self.text([token]).encode()

    def _encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        with self._lock:
            return tuple(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def _render(self, messages: Sequence[ChatMessage], *, opens_answer: bool) -> str:
        turns = [
            {"role": message.role, "content": require_plain(message.content, control=self._control)}
            for message in messages
        ]
        try:
            with self._lock:
                return self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=opens_answer, **self._variables
                )
        # Templates raise what they like; without one transformers raises a ValueError.
        except (TemplateError, TypeError, ValueError) as error:
            raise TextError(f"the chat template refuses the messages: {first_line(error)}") from error


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """What a text must not spell: the special tokens of a tokenizer of transformers."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(sorted({*added, *tokenizer.all_special_tokens}))


def require_plain(text: str, *, control: Sequence[str]) -> str:
    """A text that spells none of these.

    Raises:
        TextError: it does.
    """
    spelled = next((token for token in control if token in text), None)
    if spelled is not None:
        raise TextError(f"a text spells the special token {spelled}: give token ids where it is meant")
    return text


def _looked_up(tokens: Sequence[bytes | None]) -> Callable[[int], bytes | None]:
    """Rows of the matrix that no token has stand for no text."""
    return lambda token: tokens[token] if token < len(tokens) else None
