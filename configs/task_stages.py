"""Students of a task, and the stages that each one goes through."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.models import GrownBlock, ModelSource, Name, NonNegative, Positive
from configs.stages import LoraConfig
from configs.task_features import FeatureTerm
from configs.task_objectives import (
    TASK_LOSS_SETTINGS,
    TASK_OBJECTIVES,
    TaskNeed,
    TaskObjective,
    find_task_objective,
    task_objectives_where,
)
from configs.task_starts import TaskStart, TransformerStart

if TYPE_CHECKING:
    TaskObjectiveName = str
else:
    # What the registry names: the schema refuses every other name, and its message lists these.
    TaskObjectiveName = Literal[tuple(TASK_OBJECTIVES)]

GOLD = "train"
"""The examples with gold labels: the train split of the task."""

TRANSFER = "transfer"
"""The texts that only the teacher labels."""

PLAIN = "plain"
"""Plain text about nothing in particular (`data.plain`), which general stages learn from."""

OWN_SETS = frozenset({GOLD, TRANSFER, PLAIN})
"""Sets of examples that no augmentation may be named after."""


class TaskStageConfig(GrownBlock):
    """One training stage of a task student, or of a teacher that is prepared.

    `data` names sets of examples: `train` (gold), `transfer` (unlabelled), and augmentations by their names. Where a
    loss knows a gold label and the teacher's belief, `gold_weight` is the share of the cross-entropy on gold.
    `features` are terms beside that loss about what is inside the teacher, each a mean over texts or tokens.
    `masked_lm` learns hidden tokens of plain text, with `lm_weight` on what stood there and `soft_weight` on what the
    teacher believes of it.
    `unfrozen` says what learns: everything, or the head and that many layers below it. `patience` ends the stage when
    so many measurements of the dev split in a row were no better than the best.

    With `views` V an epoch reads one copy of each text of the augmented sets, epoch e copy number e mod V (Beyer et al.
    2022, arXiv 2106.05237); without it, all copies. With `teacher: live` the teacher is not asked before: it reads
    beside the student, and texts that rules change are changed anew in every epoch.
    """

    later_keys = ("features", "lm_weight", "soft_weight", "views", "teacher")

    objective: TaskObjectiveName
    data: Annotated[tuple[Name, ...], Field(min_length=1)] = (GOLD,)
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    gold_weight: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    labels: Literal["gold", "teacher"] = "gold"
    lm_weight: Annotated[float, Field(ge=0.0)] = 1.0
    soft_weight: Annotated[float, Field(ge=0.0)] = 0.0
    features: tuple[FeatureTerm, ...] = ()
    views: Positive | None = None
    teacher: Literal["cache", "live"] = "cache"
    unfrozen: NonNegative | Literal["all"] = "all"
    lora: LoraConfig | None = None
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegative = 0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: Positive | None = None
    select: Literal["dev_accuracy", "dev_loss", "last"] = "dev_accuracy"
    patience: Positive | None = None
    keep_start: bool = False
    seed: NonNegative = 0

    # Of the field and not of the block: what a block's validator sees before is Python, for which strict reading
    # refuses a list where a tuple is due.
    @field_validator("select", mode="before")
    @classmethod
    def _never_on_test(cls, chosen: Any) -> Any:
        if isinstance(chosen, str) and "test" in chosen:
            raise ValueError(
                f"select={chosen}: a checkpoint chosen on the test split makes its result worthless; choose "
                "dev_accuracy, dev_loss or last"
            )
        return chosen

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"name exactly one of steps and epochs; got steps={self.steps}, epochs={self.epochs}")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} must be less than the {self.steps} steps of the stage")
        if len(set(self.data)) < len(self.data):
            raise ValueError(f"data={list(self.data)} names a set twice: name it once")
        for name in ("patience", "keep_start"):
            if getattr(self, name) and self.select == "last":
                raise ValueError(
                    f"{name}={getattr(self, name)} needs a measure to compare by, which select=last does not have: set "
                    f"select: dev_accuracy or dev_loss, or remove {name}"
                )
        if self.lora is not None and self.unfrozen != "all":
            raise ValueError(
                f"lora trains adapters in all layers and unfrozen={self.unfrozen} freezes some: choose one"
            )
        self._fits_objective()
        self._fits_features()
        self.method.check(self)
        self._fits_views()
        self._fits_teacher()
        return self

    def _fits_objective(self) -> None:
        for name in TASK_LOSS_SETTINGS:
            value = getattr(self, name)
            if name in self.method.settings or value == type(self).model_fields[name].default:
                continue
            takers = task_objectives_where(lambda other, name=name: name in other.settings)  # type: ignore[misc]
            raise ValueError(f"{name}={value} only acts on objective={takers}, not {self.objective}: remove it")

    def _fits_features(self) -> None:
        sizes = {term.kind: term.related for term in self.features if term.related > 1}
        if len(set(sizes.values())) > 1:
            given = ", ".join(f"{kind} of {size}" for kind, size in sizes.items())
            raise ValueError(f"features relate groups of texts of several sizes ({given}): set one group for all")
        if self.related > self.batch_size:
            raise ValueError(
                f"features relate groups of {self.related} texts and batch_size={self.batch_size} has fewer: raise it, "
                "or lower group"
            )
        if self.needs != "nothing":
            return
        if not self.features:
            raise ValueError(f"objective={self.objective} learns its features and names none: add one to features")
        if self.select == "dev_accuracy":
            raise ValueError(
                f"select=dev_accuracy chooses by answers, and objective={self.objective} learns none: set select: "
                "dev_loss or last"
            )

    def _fits_views(self) -> None:
        if self.views is not None and set(self.data) <= OWN_SETS:
            raise ValueError(
                f"views={self.views} reads one copy of each text an epoch and data={list(self.data)} names no set of "
                "data.augment: name one, or remove views"
            )
        if self.views is not None and self.teacher == "live":
            raise ValueError(
                f"views={self.views} with teacher=live, for whom texts are changed anew in every epoch: remove one"
            )

    def _fits_teacher(self) -> None:
        if self.teacher == "cache":
            return
        if self.needs not in ("label", "logits"):
            raise ValueError(
                f"teacher=live answers beside the student and objective={self.objective} needs no answer: remove it"
            )
        kept = next((term for term in self.features if term.is_kept), None)
        if kept is not None:
            raise ValueError(
                f"features has kind={kept.kind} with place={kept.where}, which is read from the cache, and "
                "teacher=live reads texts that it lacks: set place: all, or remove teacher"
            )
        if self.epochs is None and not set(self.data) <= OWN_SETS:
            raise ValueError(
                f"teacher=live changes texts anew in every epoch and steps={self.steps} does not say how many there "
                "are: set epochs"
            )

    def identity(self) -> dict[str, Any]:
        """What of a stage changes the student that comes out of it."""
        return self.model_dump(mode="json")

    @property
    def method(self) -> TaskObjective:
        """The value behind `objective`: what it needs, which settings act on it, its loss."""
        return find_task_objective(self.objective)

    @property
    def needs(self) -> TaskNeed:
        """What must be known of every example of `data`."""
        return self.method.needs(self)

    @property
    def needs_answers(self) -> bool:
        """Whether the teacher must have answered every example of `data`, before anything is learned."""
        return self.needs in ("label", "logits") and self.teacher == "cache"

    @property
    def reads_live(self) -> bool:
        """Whether the teacher reads beside the student, in the same step."""
        return self.teacher == "live" or any(not term.is_kept for term in self.features)

    @property
    def reads_teacher(self) -> bool:
        """Whether what it learns of the teacher is more than answers that the cache holds."""
        return self.teacher == "live" or self.reads_inside

    @property
    def turns(self) -> int | None:
        """Of how many copies of a text epochs read one after the other; None where each reads all."""
        if self.teacher == "cache":
            return self.views
        return None if self.epochs is None else math.ceil(Fraction(str(self.epochs)))

    @property
    def against_overfit(self) -> str:
        """What can be done where a stage learns the rows that it reads and nothing beyond them."""
        views = "" if self.teacher == "live" else "raise views and copies of data.augment, "
        return f"{views}lower epochs, or set patience"

    @property
    def reads_inside(self) -> bool:
        """Whether a teacher shows more than its answers: what is inside it, or what it believes of hidden tokens."""
        return bool(self.features) or self.soft_weight > 0

    @property
    def related(self) -> int:
        """How many examples a loss looks at together, and so are never parted; 1 where each stands alone."""
        return max((term.related for term in self.features), default=1)

    @property
    def is_taught(self) -> bool:
        """Whether anything of it comes from a teacher."""
        return self.needs not in ("gold", "words") or self.reads_inside


class TaskStudentConfig(GrownBlock):
    """One student of a task: what it is and the stages it goes through, each from the one before.

    It is trained once for each of `seeds` seeds, counted up from those of its stages; the comparison shows all of them
    as one row, with the spread. `general` are stages before those: on plain text, beside the teacher as it is before it
    is tuned. What they make is made once, whatever the task and the seeds.
    """

    later_keys = ("general",)

    start: TaskStart
    general: tuple[TaskStageConfig, ...] = ()
    stages: Annotated[tuple[TaskStageConfig, ...], Field(min_length=1)]
    seeds: Positive = 1
    max_tokens: Positive | None = None

    @property
    def begins_with(self) -> ModelSource | None:
        """The model whose weights it begins with, if they are not the teacher's."""
        return self.start.model if isinstance(self.start, TransformerStart) else None
