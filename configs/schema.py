"""The schema of an experiment: one YAML file is one `DistillConfig`.

What changes the numbers (teacher, data, generation, students, evaluation) stands apart from what only changes speed,
place and cost (`runtime`, `budgets`, `prices`): the digest of an experiment covers the first group alone, so moving to
another machine or another number of engines continues the same run.

Every model is frozen and refuses unknown keys. Contradictions inside a block are refused here, those between blocks in
`agreement`, with both values and the cure; what needs files or hardware is checked in `orchestration`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from configs.agreement import require_agreement
from configs.audit import AuditConfig, CanariesConfig, CanaryPlace
from configs.budgets import PaidBudgetConfig, PriceConfig

# Blocks of their own modules; who reads an experiment finds all of its schema here.
from configs.data import TEMPLATE_DATE as TEMPLATE_DATE
from configs.data import DataConfig as DataConfig
from configs.data import PlainConfig as PlainConfig
from configs.data import SplitConfig as SplitConfig
from configs.doors import DoorConfig as DoorConfig
from configs.doors import OpenAiConfig as OpenAiConfig
from configs.doors import TokenPrice
from configs.models import Block, Name, NonNegative, Positive
from configs.models import ModelShape as ModelShape
from configs.passwords import passwords_in
from configs.runtime import EngineSettings as EngineSettings
from configs.runtime import RuntimeConfig as RuntimeConfig
from configs.runtime import TrainingSettings as TrainingSettings
from configs.screening import ContentConfig as ContentConfig
from configs.screening import PrivacyConfig as PrivacyConfig
from configs.stages import StageConfig, StudentConfig
from configs.sweep import SweepConfig
from configs.teacher_context import TeacherContext
from configs.teachers import (
    FIRST,
    Combination,
    LicensedTeacher,
    Together,
    unless_unused,
)

Dtype = Literal["float32", "bfloat16", "float16"]
SMALLEST_TEMPERATURE = 0.01
"""vLLM silently raises smaller positive temperatures to this one."""

StoredEncoding = Literal["topk-u8", "topk-f16"]
"""How top-k rows are stored; rows of whole vocabularies are always stored whole."""
LATER_KEYS = {
    "data": ("tools_field", "chat_template", "template_kwargs", "template_date", "plain"),
    "evaluation": ("tasks", "seeds", "exposure"),
}

PASSWORD_PLACES = {
    "runtime.tracking_uri": " and set it in the environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for "
    "an MLflow server; PGPASSWORD or ~/.pgpass for PostgreSQL)",
    "runtime.cache_root": " and set it in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3, the "
    "usual variables of other services)",
}
"""Where a password goes that does not belong into a configuration, by key."""


class WithoutPasswords(Block):
    """An experiment, of which what stands there is written into every run directory and into MLflow."""

    @model_validator(mode="after")
    def _no_passwords(self) -> Self:
        key = next(passwords_in(self.model_dump(mode="json")), None)
        if key is not None:
            raise ValueError(
                f"{key} holds a URI with a password, which would be written into every run: leave it out of the URI"
                + PASSWORD_PLACES.get(key, "")
            )
        return self


class TeacherConfig(LicensedTeacher):
    """The model that is asked once, and what is kept of its beliefs.

    With `serve` it answers behind somebody else's door, and of `model` tokenizer, templates and config.json are enough
    (docs/decisions/0039-a-served-teacher.md). With `openai` it is whatever answers under that name, and `model` the one
    whose tokenizer its texts are read with; there `top_k: 0` keeps what it wrote and asks for no beliefs.
    """

    later_keys = (*LicensedTeacher.later_keys, "serve", "openai")

    serve: DoorConfig | None = None
    openai: OpenAiConfig | None = None
    dtype: Dtype = "bfloat16"
    quantization: str | None = None
    top_k: NonNegative = 64
    encoding: StoredEncoding = "topk-u8"

    @property
    def elsewhere(self) -> DoorConfig | OpenAiConfig | None:
        """Where it answers, if no engine of this experiment does."""
        return self.serve or self.openai

    @property
    def price(self) -> TokenPrice | None:
        """What its tokens cost, where it is paid by the token."""
        return None if self.openai is None else self.openai.price

    @property
    def label(self) -> str:
        """What it is called for people."""
        return self.model.label if self.openai is None else self.openai.label

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.serve is not None and self.openai is not None:
            raise ValueError(
                f"serve={self.serve.url} and openai.base_url={self.openai.base_url}: the teacher answers in one place, "
                "remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _only_what_acts(self) -> Self:
        if self.openai is None:
            if self.top_k == 0:
                raise ValueError(
                    "top_k=0 keeps nothing that a teacher believes, which only one behind openai may have to do "
                    "without: set it to 1 or more"
                )
            return self
        for name in ("dtype", "quantization"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={value} acts on engines, and {self.openai.model} behind {self.openai.host} has whatever "
                    "it has there: remove it"
                )
        return self


class GenerationConfig(Block):
    """How the teacher writes its answers."""

    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_new_tokens: Positive = 256
    samples_per_prompt: Positive = 1
    seed: NonNegative = 0

    @model_validator(mode="after")
    def _temperature_is_one_that_engines_take(self) -> Self:
        if 0.0 < self.temperature < SMALLEST_TEMPERATURE:
            raise ValueError(
                f"temperature={self.temperature} would be raised to {SMALLEST_TEMPERATURE} by the engine: set it to 0 "
                f"(greedy) or at least {SMALLEST_TEMPERATURE}"
            )
        return self

    @model_validator(mode="after")
    def _samples_need_noise(self) -> Self:
        if self.temperature == 0.0 and self.samples_per_prompt > 1:
            raise ValueError(
                f"samples_per_prompt={self.samples_per_prompt} with temperature=0.0 gives the same answer "
                "every time: raise temperature or ask for one sample"
            )
        return self


class EvaluationConfig(Block):
    """What the final comparison measures, on the test split.

    `tasks` are the files of tasks (`configs.task`). With a temperature above 0, every question is answered under each
    of `seeds` seeds. With `exposure` the teacher reads every student's answers too, which takes teacher tokens
    whenever a student is new.
    """

    max_new_tokens: Positive | None = None
    samples_shown: NonNegative = 3
    tasks: tuple[Path, ...] | None = None
    seeds: Positive | None = None
    exposure: bool | None = None


class DistillConfig(Together, WithoutPasswords):
    """One experiment.

    `teachers` are further ones, which `combine` puts together with the first. `teacher_context` is what the teacher
    sees beside a row, and its students never do. `privacy` and `content` say what becomes of rows and answers that hold
    personal data, secrets, or what is not wanted. `audit` names the audits that a run ends with, and plants into the
    training data what that of privacy looks for.
    """

    name: Name
    teacher: TeacherConfig
    teachers: dict[Name, TeacherConfig] = Field(default_factory=dict)
    combine: Combination | None = None
    teacher_context: TeacherContext | None = None
    data: DataConfig
    privacy: PrivacyConfig | None = None
    content: ContentConfig | None = None
    audit: AuditConfig | None = None
    generation: GenerationConfig = GenerationConfig()
    students: Annotated[dict[Name, StudentConfig], Field(min_length=1)]
    evaluation: EvaluationConfig = EvaluationConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    budgets: PaidBudgetConfig = PaidBudgetConfig()
    prices: PriceConfig | None = None
    sweep: SweepConfig | None = None

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        require_agreement(self)
        return self

    @property
    def canaries(self) -> CanariesConfig | None:
        """What is planted into the training data; None where nothing is."""
        return None if self.audit is None else self.audit.canaries

    @property
    def canary_places(self) -> tuple[CanaryPlace, ...]:
        """Where canaries stand: where the block says, or where stages learn from."""
        if self.canaries is not None and self.canaries.where is not None:
            return self.canaries.where
        sources = {stage.source for student in self.students.values() for stage in student.stages}
        places: dict[CanaryPlace, bool] = {"prompt": "teacher" in sources, "answer": "gold" in sources}
        return tuple(place for place, holds in places.items() if holds)

    def answer_limits(self) -> dict[str, int]:
        """The tokens of an answer, by the key that says how many they are at most."""
        limits = {"generation.max_new_tokens": self.generation.max_new_tokens}
        limits["evaluation.max_new_tokens"] = self.evaluation.max_new_tokens or 0
        for name, student in self.students.items():
            for number, stage in enumerate(student.stages):
                if stage.rollout is not None:
                    limits[f"students.{name}.stages.{number}.rollout.max_new_tokens"] = stage.rollout.max_new_tokens
        return limits

    @property
    def has_engines(self) -> bool:
        """Whether engines of this experiment's own answer for a teacher."""
        return any(teacher.elsewhere is None for teacher in self.every_teacher.values())

    @property
    def longest_asked(self) -> int:
        """Tokens that a teacher's engine has to take at once; one more than the longest sequence."""
        asked = self.data.max_prompt_tokens + max(self.answer_limits().values()) + 1
        if self.data.plain is not None:
            asked = max(asked, self.data.plain.max_tokens + 1)
        # What a teacher is shown more is cut to its engine.
        return asked if self.teacher_context is None else max(asked, self.runtime.teacher_engine.max_model_len)

    @property
    def longest_context(self) -> int:
        """Tokens of the longest prompt that the teacher reads, context included, beside the answers that it gives."""
        answers = max(self.generation.max_new_tokens, self.evaluation.max_new_tokens or 0)
        return self.runtime.teacher_engine.max_model_len - answers - 1

    def stages_taught_by(self, assistant: str | None) -> tuple[StageConfig, ...]:
        """The stages of the students that this student teaches; None asks for those of the teacher itself."""
        return tuple(s for student in self.students.values() if student.teacher == assistant for s in student.stages)

    @property
    def every_teacher(self) -> dict[str, TeacherConfig]:
        """All teachers by their names, the first one first."""
        return {FIRST: self.teacher, **self.teachers}

    def of_teacher(self, name: str) -> DistillConfig:
        """The same experiment with one of its teachers alone."""
        return self.model_copy(update={"teacher": self.every_teacher[name], "teachers": {}, "combine": None})

    @model_serializer(mode="wrap")
    def _one_teacher(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said = unless_unused(dump(self))
        for key in ("teacher_context", "privacy", "content", "audit"):
            # An experiment without one is written, and addressed, as it was before there were any.
            if getattr(self, key) is None:
                said.pop(key, None)
        return said

    def digest(self) -> str:
        """SHA-256 (hex) of everything that changes the numbers of this one experiment."""
        said = self.model_dump(mode="json", exclude={"runtime", "budgets", "prices", "sweep"})
        # Who answers is in the identity of the teacher, or declared, and where changes no number.
        for name, teacher in {FIRST: said["teacher"], **said.get("teachers", {})}.items():
            teacher.pop("serve", None)
            remote = self.every_teacher[name].openai
            if remote is not None:
                teacher["openai"] = remote.declared
        # Audits look at students that are finished; what is planted for them is learned.
        planted = (said.pop("audit", None) or {}).get("canaries")
        if planted is not None:
            said["audit"] = {"canaries": planted}
        for block, keys in LATER_KEYS.items():
            for key in keys:
                # An experiment that does not set them keeps the digest that it had before there were any.
                if said[block][key] is None:
                    del said[block][key]
        for student in said["students"].values():
            for stage in student["stages"]:
                former = (stage.get("rollout") or {}).get("replay_from")
                if former is not None:
                    # `<run>/rollouts/<student>`: the run's name holds the digest of what wrote them, and where it lies
                    # changes no number.
                    stage["rollout"]["replay_from"] = "/".join(Path(former).parts[-3:])
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
