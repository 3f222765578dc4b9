"""Conversations: what a row may hold, what of it can be used, and where the last answer ends.

A message goes to the template as it stands, `tool_calls`, `name` and `reasoning_content` included, as transformers
hands it over. An answer is what the template writes after the prompt, up to the token at which a turn ends: that is
not always the tokenizer's end-of-sequence token (Gemma ends turns with `<end_of_turn>`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs.regular_files import texts_within

ROLES = ("system", "user", "assistant", "tool")
BROKEN = re.compile("[\ufffd\ud800-\udfff]")
"""The character that replaces invalid bytes, and halves of pairs."""

THOUGHT = ("reasoning_content", "reasoning", "thinking")
MARKER = "The answer stands here 4f1c."
"""An answer that no data has; it shows what a template writes behind one."""

Message = Mapping[str, Any]


def messages_of(listed: object) -> list[dict[str, Any]] | str:
    """A conversation, or why it is not one. What is null in a message is not in it."""
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes) or not listed:
        return "not a list of messages"
    messages = []
    for message in listed:
        if not isinstance(message, Mapping) or "role" not in message:
            return "a message without role and content"
        if "content" not in message and not _calls(message):
            return "a message without role and content"
        if message["role"] not in ROLES:
            return f"a message of role {message['role']!r}, not one of {', '.join(ROLES)}"
        messages.append({key: value for key, value in message.items() if value is not None or key == "content"})
    return messages


def tools_of(listed: object) -> list[Any] | str | None:
    """The tools that a row offers, as JSON or as its text; None where it offers none, or why it cannot be used."""
    if isinstance(listed, str) and listed.strip():
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            return "tools that are not JSON"
    if not listed:
        return None
    if not isinstance(listed, list) or not all(isinstance(tool, Mapping) for tool in listed):
        return "tools that are not a list of JSON objects"
    return listed


def unusable_message(message: Message, *, control: tuple[str, ...]) -> str | None:
    """Why a message cannot be used, if it cannot; `control` are the texts of the special tokens."""
    content = message.get("content")
    # Who calls a tool need not say anything.
    if not (_calls(message) and content in (None, "")):
        reason = unusable(content, control=control)
        if reason is not None:
            return reason
    others = message.keys() - {"role", "content"}
    return unusable_parts({key: message[key] for key in message if key in others}, control=control) if others else None


def unusable_parts(value: object, *, control: tuple[str, ...]) -> str | None:
    """Why a text somewhere within a value of JSON cannot be used, if one cannot."""
    reasons = (_misspelt(text, control=control) for text in texts_within(value))
    return next((reason for reason in reasons if reason is not None), None)


def unusable(text: object, *, control: tuple[str, ...]) -> str | None:
    """Why a text cannot be used, if it cannot; `control` are the texts of the special tokens."""
    if not isinstance(text, str):
        return f"not text but {'nothing' if text is None else type(text).__name__}"
    return "empty" if not text.strip() else _misspelt(text, control=control)


def needed_fields(messages: Sequence[Message]) -> set[str]:
    """Fields of these messages that say something, so that a template must not leave them out."""
    fields = ("tool_calls", *THOUGHT)
    return {field for field in fields if any(message.get(field) for message in messages)}


def words_of(message: Message) -> str:
    """What a message says, for people."""
    content = message.get("content")
    return content if isinstance(content, str) else ""


def answer_within(whole: str, *, answer: Message, marked: str) -> str | None:
    """The words of an answer and what a template writes behind it, or None when that cannot be known.

    For templates that open an answer otherwise than they write one that is there (with room for thoughts, say).

    Args:
        whole: The conversation with the answer.
        answer: The answer.
        marked: The conversation with an answer that says `MARKER`.
    """
    _, found, behind = marked.rpartition(MARKER)
    words = words_of(answer).strip()
    if needed_fields([answer]) or not found or not whole.endswith(words + behind):
        return None
    return words + behind


def _calls(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message.get("tool_calls"))


def _misspelt(text: str, *, control: tuple[str, ...]) -> str | None:
    if BROKEN.search(text):
        return "invalid UTF-8"
    spelled = next((token for token in control if token in text), None)
    return None if spelled is None else f"special token {spelled} written as text"
