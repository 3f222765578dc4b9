"""What an experiment may spend, and what its time and tokens cost."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from configs.models import Block, GrownBlock, Positive

CURRENCY = "USD"
"""What prices are in, unless it is said."""


class BudgetConfig(GrownBlock):
    """Limits of an experiment over all its starts; what was bought stays in the cache.

    Tokens and hours stop a fill, a rollout or the teacher's evaluation. GPU hours are those of all engines, GPUs times
    their life; on CPUs an engine counts as one GPU. `max_kwh` is what all machines of the run may take, and stops
    whatever computes.
    """

    later_keys: ClassVar[tuple[str, ...]] = ("max_kwh",)

    max_teacher_tokens: Positive | None = None
    max_gpu_hours: Annotated[float, Field(gt=0.0)] | None = None
    max_kwh: Annotated[float, Field(gt=0.0)] | None = None


class PaidBudgetConfig(BudgetConfig):
    """Those of an experiment whose teachers may be paid by the token (`teacher.openai.price`), in `prices.currency`."""

    later_keys = (*BudgetConfig.later_keys, "max_teacher_money")

    max_teacher_money: Annotated[float, Field(gt=0.0)] | None = None


class PriceConfig(Block):
    """What the time of a GPU, or a token of a teacher that is paid by the token, costs in `currency`.

    On CPUs an hour of an engine or of a worker group counts as one GPU hour.
    """

    currency: str = CURRENCY
    gpu_hour: Annotated[float, Field(ge=0.0)] | None = None
    teacher_million_tokens: Annotated[float, Field(ge=0.0)] | None = None

    @model_validator(mode="after")
    def _something_has_a_price(self) -> Self:
        if self.gpu_hour is None and self.teacher_million_tokens is None:
            raise ValueError("name gpu_hour, teacher_million_tokens or both")
        return self
