"""On-policy stages: the sequences that a student writes while it learns, and what it learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.models import Block, NonNegative, Positive

Importance = Literal["clip", "token", "per_decision", "trajectory", "none"]


class PolicyConfig(Block):
    """The loss of `minillm`; what the terms are, and where they come from, stands in docs/objectives.md.

    `paper` is the method as it was published, `lmops` what the authors' released code does; in that mode `importance`,
    `length_normalised`, `reward_scale` and `reward_clip` are its own and may not be set. Rewards are in nats:
    log p - log q of a sampled token, times `reward_scale`, then cut to +-`reward_clip`. `weight_cap` bounds importance
    weights from above. `advantage: token` takes a token's own reward in place of the later ones.
    """

    mode: Literal["paper", "lmops"] = "paper"
    importance: Importance = "clip"
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    weight_cap: Annotated[float, Field(gt=0.0)] | None = None
    length_normalised: bool = True
    advantage: Literal["return", "token"] = "return"
    reward_scale: Annotated[float, Field(gt=0.0)] = 1.0
    reward_clip: Annotated[float, Field(gt=0.0)] | None = None
    single_step: Annotated[float, Field(ge=0.0)] = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        defaults = {"importance": "clip", "length_normalised": True, "reward_scale": 1.0, "reward_clip": None}
        if self.mode == "lmops":
            for name, default in (defaults | {"advantage": "return"}).items():
                if (value := getattr(self, name)) != default:
                    raise ValueError(
                        f"{name}={value} cannot be set in mode=lmops, which fixes it: remove one of the two"
                    )
        if self.weight_cap is not None and self.importance in ("clip", "none"):
            raise ValueError(
                f"weight_cap={self.weight_cap} bounds importance weights and importance={self.importance} has none: "
                "remove it, or choose token, per_decision or trajectory"
            )
        return self


class PretrainConfig(Block):
    """L_PT: a language-model loss on plain text, `weight` x its mean over `tokens` tokens a step.

    It keeps what the student could do apart from the task. `path` is a JSONL, Parquet or CSV file with the field
    `text`; the teacher's tokenizer reads it, and a text ends with the end-of-sequence token.
    """

    path: Path
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    tokens: Positive = 4096


class RolloutConfig(Block):
    """`count` rollouts, each of `prompts` sequences, trained on `epochs` times in `minibatches` optimiser steps.

    Each token is drawn from alpha p + (1 - alpha) q, teacher p and student q; with `alpha: 0` the teacher never writes.
    A share of 1 - `share` of the sequences is the teacher's own from the cache (lambda of GKD is `share`). With `ahead`
    the next rollout is written while the student learns from this one, by weights that are one rollout old. So many
    former rollouts as `replay` says are learned from again beside the newest. `replay_from` names the rollouts that
    another training left (`rollouts/<student>` of its run directory, `rollouts/<student>.<stage>` where several of its
    stages wrote some); nothing is written then. Beside each rollout the student alone answers `dev_prompts` held-out
    prompts, to estimate its reverse KL from the teacher.

    A stage stops when the mean length of what the student writes falls below `least_tokens`, or its entropy below
    `least_entropy` nats a token.
    """

    count: Positive
    prompts: Positive = 256
    epochs: Positive = 1
    minibatches: Positive = 4
    alpha: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    max_new_tokens: Positive = 256
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    ahead: bool = False
    replay: NonNegative = 0
    replay_from: Path | None = None
    dev_prompts: NonNegative = 32
    quota_gib: Annotated[float, Field(gt=0.0)] = 1.0
    least_tokens: Annotated[float, Field(ge=0.0)] = 1.0
    least_entropy: Annotated[float, Field(ge=0.0)] = 0.01

    @property
    def steps(self) -> int:
        """Optimiser steps of all rollouts together."""
        return self.count * self.steps_each

    @property
    def steps_each(self) -> int:
        """Optimiser steps of one rollout."""
        return self.epochs * self.minibatches

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minibatches > self.prompts:
            raise ValueError(
                f"minibatches={self.minibatches} of prompts={self.prompts} sequences: some would be empty; lower "
                "minibatches or raise prompts"
            )
        if self.replay_from is not None and self.ahead:
            raise ValueError(f"ahead=true has nothing to write with replay_from={self.replay_from}: remove one of them")
        return self
