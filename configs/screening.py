"""What becomes of personal data, of secrets and of unwanted content: in the rows of the data and in answers.

Two blocks of an experiment with the same two questions: what happens to a row of data in which something is found,
before anybody is asked about it, and what to an answer, before anybody learns it. What changes a row changes what is
asked, so both blocks are part of an experiment's digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from configs.models import Block

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


class ContentConfig(Block):
    """Content that is not wanted: rows and answers that hold a line of `blocklist`, or that are rated offensive.

    `blocklist` is a text file with a word or phrase a line, found as whole words in any case. `offensive` is the
    probability from which the classifier of alt-profanity-check counts.
    """

    prompts: Literal["off", "count", "drop"] = "drop"
    answers: AnswerAction = "drop"
    blocklist: Path | None = None
    offensive: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    @model_validator(mode="after")
    def _something_is_done(self) -> Self:
        _require_some(self.prompts, self.answers)
        if self.blocklist is None and self.offensive is None:
            raise ValueError("nothing says what is not wanted: set blocklist, offensive or both")
        return self


def _require_some(prompts: str, answers: str) -> None:
    if prompts == answers == "off":
        raise ValueError("prompts=off and answers=off look at nothing: set one to count, or remove the block")
