"""What becomes of personal data, of secrets and of unwanted content: in the rows of the data and in answers.

Two blocks of an experiment with the same two questions: what happens to a row of data in which something is found,
before anybody is asked about it, and what to an answer, before anybody learns it. What changes a row changes what is
asked, so both blocks are part of an experiment's digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, JsonValue, model_validator

from configs.models import Block, GrownBlock, ModelSource, Positive

PrivateKind = Literal["EMAIL", "PHONE", "CARD", "IBAN", "IP", "SSN", "CRYPTO", "SECRET"]
"""What is found by its form: an e-mail address, a phone number, the number of a payment card, of a bank account, of a
machine, of American social security, the address of a wallet; and a key, token or password."""

PERSON = "PERSON"
"""A name of a person, which only a model finds."""

PrivateKinds = Annotated[tuple[PrivateKind, ...], Field(min_length=1)]

AnswerAction = Literal["off", "count", "drop"]
"""An answer cannot be redacted: what a teacher believes is about the very tokens that it wrote."""


class PrivacyConfig(Block):
    """Personal data and secrets.

    In the rows of the data they are `count`ed, `redact`ed (each value becomes a placeholder such as `<EMAIL_1>`, the
    same value the same one in all splits) or the row is `drop`ped; of answers the whole is dropped. `find` chooses
    among the kinds that have a form; names of people are found by the spaCy pipeline `names`, an installed package,
    where one is named. What a recogniser is at least as sure of as `threshold` counts.
    """

    prompts: Literal["off", "count", "redact", "drop"] = "count"
    answers: AnswerAction = "count"
    find: PrivateKinds = get_args(PrivateKind)
    names: str | None = None
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4

    @model_validator(mode="after")
    def _something_is_done(self) -> Self:
        _require_some(self.prompts, self.answers)
        return self


GuardWords = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class GuardConfig(Block):
    """A model that guards others: it reads a prompt, or a prompt and its answer, and says whether that is safe.

    How sure it is stands in the first word of its answer: the probability of the `unsafe` words among that of these
    and the `safe` ones, which counts from `threshold` on. With `template: chat` it is given the conversation by its
    own chat template, with `template_kwargs`; where `ask_prompt` and `ask_answer` are set, it is asked these in place
    of it, in which `{prompt}` and `{answer}` are what is judged. `begins` is what its answer begins with before
    that word. What takes more than `max_tokens` it is not asked: that counts as not wanted. Its `licence` is told, if
    it is not the one on its card; it teaches nobody.
    """

    model: ModelSource
    unsafe: GuardWords
    safe: GuardWords
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    template: Literal["chat", "raw"] = "chat"
    template_kwargs: dict[str, JsonValue] | None = None
    ask_prompt: str | None = None
    ask_answer: str | None = None
    begins: str = ""
    max_tokens: Positive = 2048
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    quantization: str | None = None
    licence: str | None = None

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        both = set(self.unsafe) & set(self.safe)
        if both:
            raise ValueError(f"unsafe and safe both name {min(both)!r}, which then says nothing: name it once")
        return self

    @model_validator(mode="after")
    def _asked_somehow(self) -> Self:
        asks = {"ask_prompt": (self.ask_prompt, ("{prompt}",)), "ask_answer": (self.ask_answer, ("{answer}",))}
        for key, (text, fields) in asks.items():
            lacks = next((field for field in fields if text is not None and field not in text), None)
            if lacks is not None:
                raise ValueError(f"{key} has no {lacks}, so its guard would not see what it judges: put it in")
        missing = [key for key, (text, _) in asks.items() if text is None]
        if len(missing) == 1 or (missing and self.template == "raw"):
            raise ValueError(
                f"{' and '.join(missing)} not set: say how the guard is asked about both prompts and answers, or leave "
                "both to the chat template of its own (template: chat)"
            )
        if self.template == "raw" and self.template_kwargs is not None:
            raise ValueError("template_kwargs is only used by template=chat, not template=raw: remove it")
        return self


class ContentConfig(GrownBlock):
    """Content that is not wanted: what holds a line of `blocklist`, is rated offensive, or what a `guard` finds unsafe.

    `blocklist` is a text file with a word or phrase a line, found as whole words in any case. `offensive` is the
    probability from which the classifier of alt-profanity-check counts. What one of these finds the guard is not asked.
    """

    later_keys = ("guard",)

    prompts: Literal["off", "count", "drop"] = "drop"
    answers: AnswerAction = "drop"
    blocklist: Path | None = None
    offensive: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    guard: GuardConfig | None = None

    @model_validator(mode="after")
    def _something_is_done(self) -> Self:
        _require_some(self.prompts, self.answers)
        if self.blocklist is None and self.offensive is None and self.guard is None:
            raise ValueError("nothing says what is not wanted: set blocklist, offensive or guard")
        return self


def _require_some(prompts: str, answers: str) -> None:
    if prompts == answers == "off":
        raise ValueError("prompts=off and answers=off look at nothing: set one to count, or remove the block")
