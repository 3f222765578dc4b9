"""The audits that a run ends with, and what is planted into its training data for one of them: canaries.

Audits look at students that are finished, so what is asked of them is in the digest of no experiment. A canary is a
sentence with a secret that nobody could guess, in as many rows as it is repeated. Planted rows are other rows to learn
from, so these are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from configs.models import Block, GrownBlock, NonNegative, Positive

AuditName = Literal["privacy", "bias", "refusals"]

AUDITS: tuple[AuditName, ...] = get_args(AuditName)
"""The kinds of audits that there are, in the order in which they are made and shown."""

AuditChoice = Literal["privacy", "bias", "refusals", "all"]
"""What a run may name."""

EVERY: AuditChoice = "all"
"""Stands for all of them."""

AUDITED_ROWS = 256
"""Training rows, and as many held-out rows: enough for intervals of some five percentage points to either side."""

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


def _as_list(value: object) -> object:
    """One name stands for a list of it."""
    # A list that comes out of here is not JSON's any more, and would be refused where a tuple is wanted.
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class AskedAudits(GrownBlock):
    """The audits that a run ends with (`run`), one or more of `AUDITS`, or all.

    Each asks about at most so many training `rows` and as many held-out ones; `pairs` are files of further pairs of
    sentences.
    """

    later_keys: ClassVar[tuple[str, ...]] = ("run", "rows", "pairs")

    run: Annotated[tuple[AuditChoice, ...], BeforeValidator(_as_list)] = ()
    rows: Positive = AUDITED_ROWS
    pairs: tuple[Path, ...] = ()

    @property
    def wanted(self) -> tuple[AuditName, ...]:
        """The audits that are asked for, each once."""
        return tuple(name for name in AUDITS if name in self.run or EVERY in self.run)

    @property
    def _does_more(self) -> bool:
        """Whether the block is there for something beside audits at the end of the run."""
        return False

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.run:
            return self
        cure = f"set run: {EVERY}, or some of {', '.join(AUDITS)}"
        if self.rows != AUDITED_ROWS or self.pairs:
            given = f"pairs={[str(path) for path in self.pairs]}" if self.pairs else f"rows={self.rows}"
            raise ValueError(f"{given} is of audits, and run names none: {cure}")
        if not self._does_more:
            raise ValueError(f"asks for nothing: {cure}, or remove the block")
        return self


class AuditConfig(AskedAudits):
    """The audits that a run of a language model ends with, and what it plants for that of privacy."""

    canaries: CanariesConfig | None = None

    @property
    def _does_more(self) -> bool:
        return self.canaries is not None


class TaskAudits(AskedAudits):
    """The audits that a run of a task ends with; `groups` are fields of its test rows whose values are groups."""

    later_keys: ClassVar[tuple[str, ...]] = (*AskedAudits.later_keys, "groups")

    groups: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @property
    def _does_more(self) -> bool:
        return bool(self.groups)

    @model_validator(mode="after")
    def _fits_labels(self) -> Self:
        if self.pairs:
            raise ValueError(
                f"pairs={[str(path) for path in self.pairs]} are sentences of which a language model finds one "
                "likelier, and students of a task give labels: remove it, or name groups of test rows by groups"
            )
        if len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups={list(self.groups)} names a field twice: name it once")
        return self
