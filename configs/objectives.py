"""What a stage may learn: an objective is one value, and this is what it says about itself.

A method (`sft`, `seqkd`, `kd` and others) is one module of `student_train.objectives` that holds one `Objective`, named
`OBJECTIVE`: what it learns, what it needs of the teacher, whether the student may write its own sequences, which
settings of a stage act on it, its loss, and what a model card says. Whoever has a stage asks its value
(`StageConfig.method`); names are never compared. docs/add-an-objective.md adds one, step by step.

`OBJECTIVES` is the registry. It names modules and imports none of them: this package stands below `student_train`. A
module is imported when its value is first asked for, as `logging.config` and entry points do it. These modules are
light: what needs torch is imported inside their functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from configs.errors import ConfigError

if TYPE_CHECKING:
    from configs.stages import StageConfig

OBJECTIVES: Mapping[str, str] = MappingProxyType(
    {
        "sft": "student_train.objectives.sft",
        "seqkd": "student_train.objectives.seqkd",
        "kd": "student_train.objectives.kd",
        "uld": "student_train.objectives.uld",
        "span_likelihood": "student_train.objectives.span_likelihood",
        "minillm": "student_train.objectives.minillm",
    }
)
"""Every objective by the name that a configuration gives it, and the module that holds its value."""

LossSetting = Literal["ce_weight", "temperature", "tail", "divergence", "policy"]
"""A setting of a stage that shapes a loss, and only some losses."""

LOSS_SETTINGS: tuple[LossSetting, ...] = get_args(LossSetting)

NEEDS: Mapping[str, str] = MappingProxyType({"nothing": "nothing", "text": "its text", "topk": "its log-probabilities"})
"""What an objective may need of the teacher, and how that is said."""


def _no_rule(_: StageConfig) -> None:
    """Everything that the declared fields allow goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One method of learning from a teacher.

    `learns` says in a few words what; `source` is the only source of sequences that it makes sense of, None for any
    (plain text is nobody's answer, and learned like gold ones).
    `needs` is what the cache must hold of each sequence: `topk` stands for log-probabilities, in whatever form a record
    has them. `on_policy` says whether a stage may have `rollout`, where the student writes the sequences. `settings`
    are those of `LOSS_SETTINGS` that act on it; any other may not be set. With `policy` among them sampled tokens reach
    the loss with what is known about them (`MicroBatch.policy`). `live` says that its loss takes a teacher at hand
    (`MicroBatch.live`) in place of what the cache holds. `across` says that a student of another tokenizer than
    the teacher's can learn it: from text alone, or from `MicroBatch.aligned`.

    `loss` is a pure function from hidden states at the response positions, head, micro-batch and stage to sums over
    positions (`student_train.models.decoder.ObjectiveLoss`). `card` says in a model card what was learned,
    settings included. `check` raises ValueError at a contradiction that the fields above cannot express.
    """

    name: str
    learns: str
    loss: Callable[..., Any]
    card: Callable[[StageConfig], str]
    source: Literal["teacher", "gold"] | None = None
    needs: Literal["nothing", "text", "topk"] = "text"
    on_policy: Literal["never", "optional", "always"] = "never"
    settings: frozenset[LossSetting] = frozenset()
    live: bool = False
    across: bool = False
    check: Callable[[StageConfig], None] = _no_rule

    def learns_from(self, source: str) -> bool:
        """Whether it makes sense of sequences of this source."""
        return self.source is None or self.source == source or (self.source == "gold" and source == "plain")

    @property
    def needs_logprobs(self) -> bool:
        """Whether it reads the teacher's log-probabilities, not its text alone."""
        return self.needs == "topk"

    @property
    def weighs_samples(self) -> bool:
        """Whether its loss takes advantages and weights of the tokens that a student sampled."""
        return "policy" in self.settings


def find_objective(name: str) -> Objective:
    """The value of an objective.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"objective={name} is unknown: choose one of {', '.join(OBJECTIVES)}")
    value = import_module(OBJECTIVES[name]).OBJECTIVE
    assert isinstance(value, Objective) and value.name == name
    return value


def names_where(holds: Callable[[Objective], bool]) -> str:
    """The objectives of which something holds, as a choice for people: `kd or minillm`."""
    return " or ".join(name for name in OBJECTIVES if holds(find_objective(name)))
