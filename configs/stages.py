"""Students, and the stages that each one goes through."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.divergences import Divergence, PlainDivergence
from configs.models import Block, GrownBlock, ModelSource, Name, NonNegative, Positive
from configs.objectives import LOSS_SETTINGS, OBJECTIVES, Objective, find_objective, names_where
from configs.rollouts import PolicyConfig, PretrainConfig, RolloutConfig
from configs.starts import InitConfig
from configs.task_features import FeatureTerm

if TYPE_CHECKING:
    ObjectiveName = str
else:
    # What the registry names: the schema refuses every other name, and its message lists these.
    ObjectiveName = Literal[tuple(OBJECTIVES)]


class LoraConfig(Block):
    """Low-rank adapters instead of all weights; they are merged into the weights when the stage ends."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class FilterConfig(Block):
    """Which training sequences are learned; what is left out is counted.

    Lengths are in response tokens. `drop_duplicates` keeps the first of several answers to one prompt that read alike.
    `min_rouge_l` (0 to 100) compares with the gold answer.
    """

    finish: Literal["any", "stop"] = "any"
    min_tokens: Positive | None = None
    max_tokens: Positive | None = None
    drop_duplicates: bool = False
    min_rouge_l: Annotated[float, Field(gt=0.0, le=100.0)] | None = None

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}: change one")
        return self


class StageConfig(GrownBlock):
    """One training stage of a student.

    With `rollout` the student learns from what it writes itself meanwhile, and the number of steps is that of its
    rollouts: `objective: kd` takes the divergence there, `minillm` the loss that `policy` describes. With `keep_start`
    the stage gives back what it began with if no later step is better by what `select` names.

    `source` says whose text is learned: the teacher's answers, gold ones, or the plain text of `data.plain`. With
    `teacher: live` what the teacher believes of it comes from a forward pass in the same step instead of the cache.
    `features` are terms beside the loss about what is inside the teacher, each a mean over response tokens, or over
    sequences (attention); for them the teacher reads beside the student too.

    With `views` V an epoch reads one answer to each prompt, epoch e sampled answer number e mod V (Beyer et al. 2022,
    arXiv 2106.05237); without it, all of them.
    """

    later_keys = ("teacher", "features", "views")

    objective: ObjectiveName
    source: Literal["teacher", "gold", "plain"] = "teacher"
    teacher: Literal["cache", "live"] = "cache"
    divergence: Divergence = PlainDivergence()
    tail: Literal["bucket", "renormalize"] = "bucket"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    ce_weight: Annotated[float, Field(ge=0.0)] = 0.0
    features: tuple[FeatureTerm, ...] = ()
    views: Positive | None = None
    filters: FilterConfig = FilterConfig()
    lora: LoraConfig | None = None
    rollout: RolloutConfig | None = None
    policy: PolicyConfig | None = None
    pretrain: PretrainConfig | None = None
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    tokens_per_step: Positive = 65536
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegative = 0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    evaluate_every: Positive | None = None
    select: Literal["dev_loss", "dev_kl", "last"] = "dev_loss"
    keep_start: bool = False
    seed: NonNegative = 0

    # Of the field and not of the block: what a block's validator sees before is Python, for which strict reading
    # refuses a list where a tuple is due.
    @field_validator("select", mode="before")
    @classmethod
    def _never_on_test(cls, chosen: Any) -> Any:
        if isinstance(chosen, str) and "test" in chosen:
            raise ValueError(
                f"select={chosen}: a checkpoint chosen on the test split makes its result worthless; choose dev_loss, "
                "dev_kl or last"
            )
        return chosen

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._length_known()
        self._fits_objective()
        self._on_policy_consistent()
        self._live_consistent()
        self._views_consistent()
        self.method.check(self)
        if self.keep_start and self.select == "last":
            raise ValueError(
                "keep_start=true needs a measure to compare the start by, which select=last does not have: set select: "
                "dev_loss or dev_kl, or remove keep_start"
            )
        return self

    def _length_known(self) -> None:
        """Steps, epochs or rollouts say how long the stage is, and only one of them."""
        lengths = {"steps": self.steps, "epochs": self.epochs, "rollout.count": self.rollout and self.rollout.count}
        if sum(value is not None for value in lengths.values()) != 1:
            got = ", ".join(f"{name}={value}" for name, value in lengths.items())
            raise ValueError(f"name exactly one of steps, epochs and rollout; got {got}")
        known = self.rollout.steps if self.rollout is not None else self.steps
        if known is not None and self.warmup_steps >= known:
            raise ValueError(f"warmup_steps={self.warmup_steps} must be less than the {known} steps of the stage")

    def _fits_objective(self) -> None:
        """Refuse a source of sequences that the objective does not learn, and settings that do not act on it."""
        method = self.method
        if not method.learns_from(self.source):
            others = names_where(lambda other: other.learns_from(self.source) and other.on_policy != "always")
            raise ValueError(
                f"objective={self.objective} learns from source: {method.source} but source={self.source}: set source: "
                f"{method.source}, or objective: {others}"
            )
        for name in LOSS_SETTINGS:
            value = getattr(self, name)
            if name in method.settings or value == type(self).model_fields[name].default:
                continue
            given = name if isinstance(value, PolicyConfig) else f"{name}={getattr(value, 'kind', value)}"
            takers = names_where(lambda other, name=name: name in other.settings)  # type: ignore[misc]
            raise ValueError(f"{given} only acts on objective={takers}, not {self.objective}: remove it")

    def _on_policy_consistent(self) -> None:
        """Refuse what only means something with rollouts, or cannot be had from them."""
        method = self.method
        if self.rollout is None:
            for name in ("policy", "pretrain"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} needs rollout, what the student writes to learn from: add it or remove {name}"
                    )
            if method.on_policy == "always":
                raise ValueError(
                    f"objective={self.objective} learns from what the student writes: describe it in rollout"
                )
            return
        if method.on_policy == "never":
            able = names_where(lambda other: other.on_policy != "never")
            raise ValueError(f"objective={self.objective} cannot learn from rollouts: set {able}, or remove rollout")
        if self.source != "teacher":
            raise ValueError(f"source={self.source} with rollout: the student writes the sequences, remove source")
        if self.filters != FilterConfig():
            raise ValueError("filters choose among cached sequences and rollout writes new ones: remove one of them")

    def _live_consistent(self) -> None:
        """Refuse a teacher beside the student that nothing asks, or that something else stands in for."""
        if self.source == "plain" and self.filters != FilterConfig():
            raise ValueError("filters choose among answers and source=plain has none: remove one of them")
        if self.teacher == "live" and not self.method.live:
            takers = names_where(lambda other: other.live)
            raise ValueError(f"teacher=live only acts on objective={takers}, not {self.objective}: remove it")
        if self.teacher == "live" and self.tail != "bucket":
            raise ValueError(f"tail={self.tail} with teacher=live, whose distribution is whole: remove one of them")
        if self.rollout is not None and self.reads_live:
            given = "teacher=live" if self.teacher == "live" else "features"
            raise ValueError(
                f"{given} with rollout, where engines of the teacher score what the student writes: remove one of them"
            )
        for at, term in enumerate(self.features):
            if term.is_kept:
                raise ValueError(
                    f"features.{at}: kind={term.kind} with place={term.where} is about one place of a text, and a "
                    "language model learns every token of an answer: choose cosine or hidden_mse with place: all"
                )

    def _views_consistent(self) -> None:
        """Refuse answers that take turns where there is one a prompt, or where the student writes them."""
        if self.views is None:
            return
        if self.source != "teacher":
            raise ValueError(
                f"views={self.views} reads one of several answers of the teacher to a prompt, and source={self.source} "
                "has one: set source: teacher, or remove views"
            )
        if self.rollout is not None:
            raise ValueError(
                f"views={self.views} with rollout, where the student writes new answers: remove one of them"
            )

    def identity(self) -> dict[str, Any]:
        """What of a stage changes the student that comes out of it.

        What texts and former rollouts hold counts, not where they lie. Settings that were added later stand in it only
        where they are used, so that the students of before keep their names.
        """
        fields = self.model_dump(mode="json", exclude={"pretrain": {"path"}, "rollout": {"replay_from"}})
        if not self.keep_start:
            del fields["keep_start"]
        return fields

    @property
    def method(self) -> Objective:
        """The value behind `objective`: what it needs, which settings act on it, its loss."""
        return find_objective(self.objective)

    @property
    def needs_cached(self) -> bool:
        """Whether the cache has to hold the teacher's log-probabilities of what is learned."""
        return self.method.needs_logprobs and self.teacher == "cache"

    @property
    def reads_live(self) -> bool:
        """Whether the teacher reads beside the student, in the same step."""
        return self.teacher == "live" or bool(self.features)

    @property
    def reads_beliefs(self) -> bool:
        """Whether what the teacher believes is learned, from the cache or beside the student."""
        return self.method.needs_logprobs or self.reads_live

    @property
    def reads_attention(self) -> bool:
        """Whether attention scores are compared."""
        return any(term.reads_attention for term in self.features)

    @property
    def train_view(self) -> str:
        """Name of the sequences that are learned: the source's, with the filters' digest where there are any."""
        name = f"{self.source}-train"
        if self.filters == FilterConfig():
            return name
        return f"{name}-{hashlib.sha256(self.filters.model_dump_json().encode()).hexdigest()[:8]}"

    @property
    def turns(self) -> str | None:
        """Name of what says which answers an epoch reads; None where every epoch reads all."""
        return None if self.views is None else f"{self.train_view}-{self.views}-views"

    @property
    def against_overfit(self) -> str:
        """What can be done where a stage learns the rows that it reads and nothing beyond them."""
        return "raise views and generation.samples_per_prompt, or lower epochs"

    @property
    def dev_view(self) -> str:
        """Name of the sequences that it is measured on; filters leave those alone."""
        return f"{self.source}-dev"


class StudentConfig(Block):
    """One student: where it starts and the stages it goes through, each from the one before.

    `teacher` names another student of the experiment that teaches this one in the teacher's place (a teacher
    assistant); it is then asked and cached like any teacher. `init` is always about the experiment's own teacher.
    """

    init: InitConfig
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    teacher: Name | None = None

    @property
    def begins_with(self) -> ModelSource | None:
        """The model whose weights it begins with, if they are not the teacher's."""
        return self.init.model
