"""What a stage of a task student may learn: an objective of tasks is one value, and this is what it says about itself.

As in `configs.objectives`, which is about language models, a method is one module of `student_train.objectives`
with one value named `OBJECTIVE`; whoever has a stage asks its value (`TaskStageConfig.method`), and names are never
compared. The registry names modules and imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from configs.errors import ConfigError

if TYPE_CHECKING:
    from configs.task_stages import TaskStageConfig

TASK_OBJECTIVES: Mapping[str, str] = MappingProxyType(
    {
        "hard_labels": "student_train.objectives.hard_labels",
        "soft_labels": "student_train.objectives.soft_labels",
        "logit_mse": "student_train.objectives.logit_mse",
        "masked_lm": "student_train.objectives.masked_lm",
        "features": "student_train.objectives.features",
    }
)
"""Every objective by the name that a configuration gives it, and the module that holds its value."""

TaskNeed = Literal["gold", "label", "logits", "words", "nothing"]
"""What must be known of an example that is learned."""

TaskLossSetting = Literal["temperature", "gold_weight", "labels", "lm_weight", "soft_weight"]
"""A setting of a stage that shapes a loss, and only some losses."""

TASK_LOSS_SETTINGS: tuple[TaskLossSetting, ...] = get_args(TaskLossSetting)


def _no_rule(_: TaskStageConfig) -> None:
    """Everything that the declared fields allow goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskObjective:
    """One method of learning a task.

    `learns` says in a few words what. `needs` says what must be known of every example of a stage: its gold label
    (`gold`), which label the teacher finds (`label`), the teacher's `logits`, its own `words`, or `nothing`. `settings`
    are those of `TASK_LOSS_SETTINGS` that act on it; any other may not be set. `general` says whether it is learned of
    plain text, in stages before those of a task. `check` raises ValueError at a contradiction of a stage that these
    fields cannot express.

    `loss` is a pure function from the student's logits at the units of a micro-batch, the micro-batch and the stage to
    sums over decisions (`student_train.objectives.decisions.task_sums`); one that learns `words` is given what stands
    before the student's output layer instead (`student_train.objectives.masked_lm`). `card` says in a model card what
    was learned, settings included.
    """

    name: str
    learns: str
    needs: Callable[[TaskStageConfig], TaskNeed]
    loss: Callable[..., Any]
    card: Callable[[TaskStageConfig], str]
    settings: frozenset[TaskLossSetting] = frozenset()
    general: Literal["never", "too", "only"] = "never"
    check: Callable[[TaskStageConfig], None] = _no_rule


def find_task_objective(name: str) -> TaskObjective:
    """The value of an objective of tasks.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in TASK_OBJECTIVES:
        raise ConfigError(f"objective={name} is unknown: choose one of {', '.join(TASK_OBJECTIVES)}")
    value = import_module(TASK_OBJECTIVES[name]).OBJECTIVE
    assert isinstance(value, TaskObjective) and value.name == name
    return value


def task_objectives_where(holds: Callable[[TaskObjective], bool]) -> str:
    """The objectives of which something holds, as a choice for people: `soft_labels or logit_mse`."""
    return " or ".join(name for name in TASK_OBJECTIVES if holds(find_task_objective(name)))
