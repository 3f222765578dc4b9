"""The examples of a task experiment beside those of the task: unlabelled ones, and ones that are made from others."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.data import PlainConfig, SplitConfig
from configs.models import Block, GrownBlock, ModelSource, Name, NonNegative, Positive
from configs.task_stages import OWN_SETS


class GoldConfig(Block):
    """How much of the train split is taken as gold: `per_class` examples of each label, drawn with `seed`.

    The other rows become texts of the transfer set, without their labels, or are left out.
    """

    per_class: Positive
    seed: NonNegative = 0
    rest: Literal["transfer", "drop"] = "transfer"


class RuleAugmentation(Block):
    """Texts changed by rules (Tang et al. 2019, arXiv 1903.12136).

    Every word becomes the mask token with probability `mask`, or another word of its part of speech with probability
    `same_part`; then, with probability `ngram`, one to five words that follow each other stand for the whole. Each text
    is changed `copies` times; what comes out twice, or holds nothing but masks, is dropped.
    """

    kind: Literal["rules"]
    of: tuple[Literal["train", "transfer"], ...] = ("train",)
    mask: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    same_part: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    ngram: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    copies: Positive = 20
    seed: NonNegative = 0

    @property
    def keeps_label(self) -> bool:
        """Whether a text keeps its gold label when it is changed."""
        return True

    @model_validator(mode="after")
    def _one_fate_a_word(self) -> Self:
        if self.mask + self.same_part > 1.0:
            raise ValueError(f"mask={self.mask} and same_part={self.same_part} sum to more than 1: lower one")
        return self


class WordReplacement(Block):
    """Words replaced by a masked language model (Jiao et al. 2020, arXiv 1909.10351).

    Every word is replaced with probability `replace` by one of the `candidates` words that `model` finds likeliest in
    its place. Each text is changed `copies` times.
    """

    kind: Literal["masked_lm"]
    model: ModelSource
    of: tuple[Literal["train", "transfer"], ...] = ("train",)
    replace: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    candidates: Positive = 15
    copies: Positive = 20
    seed: NonNegative = 0

    @property
    def keeps_label(self) -> bool:
        """Whether a text keeps its gold label when it is changed."""
        return True


class Continuation(Block):
    """Texts that a language model writes on from the first words of others (Tang, Lu and Lin 2019, ACL D19-6122)."""

    kind: Literal["continuation"]
    model: ModelSource
    of: tuple[Literal["train", "transfer"], ...] = ("train",)
    first_words: Positive = 4
    max_new_tokens: Positive = 32
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    copies: Positive = 1
    seed: NonNegative = 0

    @property
    def keeps_label(self) -> bool:
        """Whether a text keeps its gold label when it is changed: what is written on may say something else."""
        return False


class SwappedPeople(Block):
    """Texts about somebody of the other gender: counterfactual augmentation (Lu et al. 2018, arXiv 1807.11714).

    Pronouns, names and words such as "mother" are swapped by a list, in English; a text that names nobody gives none.
    Each is changed once, since there is one way to do it.
    """

    kind: Literal["swap"]
    of: tuple[Literal["train", "transfer"], ...] = ("train",)
    copies: Literal[1] = 1
    seed: Literal[0] = 0

    @property
    def keeps_label(self) -> bool:
        """Whether a text keeps its gold label when it is changed: it should be right of either."""
        return True


ByModel = WordReplacement | Continuation
"""What takes a model."""

Augmentation = Annotated[RuleAugmentation | WordReplacement | Continuation | SwappedPeople, Field(discriminator="kind")]


class AgreementFilter(Block):
    """Leaves out gold examples on which the teacher disagrees with gold: with less than `min_probability` for it.

    Of stages that learn what the teacher believes; one that learns gold alone does not depend on a teacher.
    """

    min_probability: Annotated[float, Field(gt=0.0, lt=1.0)]


class TaskDataConfig(GrownBlock):
    """The examples beside those of the task: unlabelled ones, and ones that are made from others.

    `plain` is text about nothing in particular, for general stages: windows of `max_tokens` tokens, special ones among
    them, none of which two share.
    """

    later_keys = ("plain",)

    gold: GoldConfig | None = None
    transfer: tuple[SplitConfig, ...] = ()
    augment: dict[Name, Augmentation] = Field(default_factory=dict)
    agreement: AgreementFilter | None = None
    plain: PlainConfig | None = None

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        taken = OWN_SETS & set(self.augment)
        if taken:
            raise ValueError(f"augment.{min(taken)} has a name that a set of examples has already: choose another")
        return self

    @property
    def has_transfer(self) -> bool:
        """Whether there are texts that only the teacher labels."""
        return bool(self.transfer) or (self.gold is not None and self.gold.rest == "transfer")
