"""What is planted into the training data so that an audit knows what to look for: canaries.

A canary is a sentence with a secret that nobody could guess, in as many rows as it is repeated. Planted rows are other
rows to learn from, so the block is part of an experiment's digest.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.models import Block, NonNegative, Positive

CanaryPlace = Literal["prompt", "answer"]
"""Where the secret stands: in a prompt that asks to repeat it, and in its answer; or in the gold answer alone."""

SMALLEST_SPACE = 256
"""Secrets there are to choose among; with fewer a good guess looks like a memory."""

MOST_NAMES = 600
"""Canaries that can be told apart by their names, and rows of one canary that can be told apart by who asks."""


class CanariesConfig(Block):
    """`count` canaries for each number of `repeats`, each with a secret of `length` characters of `alphabet`.

    `where` they stand is, unless it is said, in answers if a stage learns gold ones, and in prompts if one learns the
    teacher's.
    """

    count: Annotated[int, Field(ge=6)] = 8
    # From six on a number has an interval (`evaluation.statistics.intervals`).
    repeats: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 4, 16)
    where: Annotated[tuple[CanaryPlace, ...], Field(min_length=1)] | None = None
    alphabet: Annotated[str, Field(min_length=2)] = "0123456789"
    length: Positive = 6
    seed: NonNegative = 0

    @property
    def space(self) -> int:
        """How many secrets there are."""
        return int(len(self.alphabet) ** self.length)

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        if len(set(self.alphabet)) < len(self.alphabet) or any(each.isspace() for each in self.alphabet):
            raise ValueError(f"alphabet={self.alphabet!r} has a character twice, or white space: give each once")
        if len(set(self.repeats)) < len(self.repeats) or max(self.repeats) > MOST_NAMES:
            raise ValueError(
                f"repeats={list(self.repeats)} has a number twice, or one above {MOST_NAMES}: give each once, no higher"
            )
        if self.where is not None and len(set(self.where)) < len(self.where):
            raise ValueError(f"where={list(self.where)} names a place twice: name it once")
        if self.space < SMALLEST_SPACE:
            raise ValueError(
                f"length={self.length} over {len(self.alphabet)} characters makes {self.space:,} secrets, and fewer "
                f"than {SMALLEST_SPACE} can be guessed: raise length, or give alphabet more characters"
            )
        # Two places at most, and as many again that are never planted.
        named = 2 * self.count * (len(self.repeats) + 1)
        if named > MOST_NAMES:
            raise ValueError(
                f"count={self.count} for each of {len(self.repeats)} numbers of repeats makes up to {named} canaries, "
                f"and there are names for {MOST_NAMES}: lower count"
            )
        return self


class AuditConfig(Block):
    """What an experiment prepares for `distill audit`."""

    canaries: CanariesConfig
