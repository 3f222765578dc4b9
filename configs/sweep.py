"""A sweep: experiments that are alike but for chosen values, and how these are chosen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from configs.models import Block, NonNegative, Positive

TOP_K = "teacher.top_k"
"""The one key outside `students` that a sweep may vary: a cache with more tokens a row answers for fewer."""


class Range(Block):
    """Numbers from `low` to `high`, both included: whole ones if both are, drawn by their logarithms with `log`."""

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[int | float, Field(gt=0)] | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}: correct one")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log=true needs low above 0 and no step; got low={self.low}, step={self.step}")
        return self

    def values(self) -> tuple[int | float, ...]:
        """Every value of a range with a step."""
        assert self.step is not None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + number * self.step for number in range(count))


class SweepConfig(Block):
    """What is varied, and how the next values are found.

    `space` maps dotted keys below `students` (or `teacher.top_k`) to a list of values or to a range. `grid` tries every
    combination, in an order drawn by `seed`, at most `trials` of them; `random` draws; `tpe` (a tree of Parzen
    estimators, Bergstra et al. 2011) draws the first few and then looks where good ones were. `minimise` is measured on
    the dev split. `side_by_side` trials run at once, as many as there is room for unless it is set.
    """

    search: Literal["grid", "random", "tpe"] = "grid"
    trials: Positive | None = None
    seed: NonNegative = 0
    minimise: Literal["dev_kl", "dev_loss"] = "dev_kl"
    side_by_side: Positive | None = None
    space: Annotated[dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)] | Range], Field(min_length=1)]

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for key, values in self.space.items():
            if not key.startswith("students.") and key != TOP_K:
                raise ValueError(f"space.{key}: only keys below students, and {TOP_K}, can be varied")
            if isinstance(values, Range):
                if self.search == "grid" and values.step is None:
                    raise ValueError(f"space.{key} has no step, which search=grid needs: set one, or list the values")
            elif any(value in values[:at] for at, value in enumerate(values)):
                raise ValueError(f"space.{key} names a value twice: remove one")
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"search={self.search} does not end by itself: set trials")
        return self
