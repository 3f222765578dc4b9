"""What a student's beliefs are compared with the teacher's by."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from configs.models import Block

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class PlainDivergence(Block):
    """A divergence without parameters."""

    kind: Literal["forward_kl", "reverse_kl", "tvd"] = "forward_kl"


class JensenShannon(Block):
    """beta KL(p‖m) + (1 - beta) KL(q‖m); `beta` is the teacher's weight in the mixture m."""

    kind: Literal["jsd"]
    beta: Fraction = 0.5


class SkewDivergence(Block):
    """A KL to a mixture of both; `alpha` is the share of the one that the expectation is taken over."""

    kind: Literal["skew_kl", "skew_reverse_kl"]
    alpha: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class AdaptiveDivergence(Block):
    """Forward and reverse KL weighed by where the two differ; the head holds at most the mass `mu`."""

    kind: Literal["adaptive_kl"]
    mu: Fraction = 0.5


class AlphaBetaDivergence(Block):
    """The family that joins forward KL (1, 0) and reverse KL (0, 1)."""

    kind: Literal["alpha_beta"]
    a: float = 0.2
    b: float = 0.7

    @model_validator(mode="after")
    def _defined(self) -> Self:
        limits = (self.a, self.b) in {(1.0, 0.0), (0.0, 1.0)}
        if not limits and (self.a == 0.0 or self.b == 0.0 or self.a + self.b == 0.0):
            raise ValueError(
                f"a={self.a}, b={self.b}: neither may be 0 (except 1 and 0, or 0 and 1, the two KLs), nor may their sum"
            )
        return self


def _kind_alone(value: Any) -> Any:
    """`divergence: jsd` is short for `divergence: {kind: jsd}`."""
    return {"kind": value} if isinstance(value, str) else value


Divergence = Annotated[
    PlainDivergence | JensenShannon | SkewDivergence | AdaptiveDivergence | AlphaBetaDivergence,
    Field(discriminator="kind"),
    BeforeValidator(_kind_alone),
]
