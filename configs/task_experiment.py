"""The schema of an experiment that distils a task: classes, tags or answers in a text, from any teacher.

It is told from one that distils a language model by its key `task`, the file of the task (`configs.task`): the task
gives gold examples (its train split), what students are chosen by (dev) and what is reported (test). As there, what
changes the numbers stands apart from what only changes speed, place and cost.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from configs.audit import TaskAudits
from configs.budgets import BudgetConfig, PriceConfig
from configs.models import GrownBlock, Name, NonNegative
from configs.schema import RuntimeConfig, WithoutPasswords
from configs.screening import ContentConfig, PrivacyConfig
from configs.task_context import context_in_words, require_context
from configs.task_data import TaskDataConfig
from configs.task_general import require_general, require_of_task
from configs.task_stages import GOLD, OWN_SETS, TRANSFER, TaskStageConfig, TaskStudentConfig
from configs.task_teacher import TaskTeacherConfig
from configs.teacher_context import TeacherContext
from configs.teachers import (
    FIRST,
    Combination,
    TeacherRoute,
    Together,
    key_of_teacher,
    require_combined,
    unless_unused,
)

TASK_RESERVED_NAMES = frozenset({"pipeline", "fill", "teacher", "untouched", "majority"})
"""Names of runs and table rows that are not students."""


class TaskEvaluationConfig(GrownBlock):
    """What the final comparison shows, on the test split.

    `gold_baseline` trains every student on gold labels alone as well, and `augmented_baseline` on gold labels and on
    those augmented texts of its stages that keep their labels: what distillation adds is the difference to these.
    With `cka` the layers of every student are held against those of the teacher (Kornblith et al. 2019, arXiv
    1905.00414).
    """

    later_keys = ("cka",)

    gold_baseline: bool = True
    augmented_baseline: bool = False
    cka: bool = False
    samples_shown: NonNegative = 3


class TaskDistillConfig(Together, WithoutPasswords):
    """One experiment that distils a task.

    `teachers` are further ones, whose beliefs `combine` puts together with those of the first. `teacher_context` is
    what every teacher sees beside a row, and no student. `privacy` and `content` say what becomes of rows, and of texts
    that a model writes while they are augmented, in which personal data, secrets or unwanted content are found. `audit`
    names the audits that a run ends with.
    """

    name: Name
    task: Path
    teacher: TaskTeacherConfig
    teachers: dict[Name, TaskTeacherConfig] = Field(default_factory=dict)
    combine: Combination | None = None
    teacher_context: TeacherContext | None = None
    data: TaskDataConfig = TaskDataConfig()
    privacy: PrivacyConfig | None = None
    content: ContentConfig | None = None
    audit: TaskAudits | None = None
    students: Annotated[dict[Name, TaskStudentConfig], Field(min_length=1)]
    evaluation: TaskEvaluationConfig = TaskEvaluationConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    budgets: BudgetConfig = BudgetConfig()
    prices: PriceConfig | None = None

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        taken = TASK_RESERVED_NAMES & set(self.students)
        if taken:
            raise ValueError(f"students.{min(taken)} has a name that the comparison uses itself: choose another")
        require_combined(self.teachers, self.combine, taken=TASK_RESERVED_NAMES | set(self.students))
        self._teachers_agree()
        if self.evaluation.cka and self.teacher.answers != "head":
            raise ValueError(
                f"evaluation.cka=true looks into the layers of the teacher, and teacher.answers={self.teacher.answers} "
                "has it answer in an engine that shows nothing of them: set answers: head, or cka: false"
            )
        self._twins_differ()
        if self.data.agreement is not None and not any(
            stage.needs_answers for student in self.students.values() for stage in student.stages
        ):
            raise ValueError(
                f"data.agreement.min_probability={self.data.agreement.min_probability} leaves out examples by what the "
                "teacher believes of them, and no stage learns that: remove it, or choose such an objective"
            )
        for name, student in self.students.items():
            for number, stage in enumerate(student.stages):
                key = f"students.{name}.stages.{number}"
                require_of_task(key, stage)
                self._sets_exist(key, stage)
                self._fits_live(key, stage, student=student, name=name)
        require_general(
            self.students,
            teacher=self.teacher.general,
            answers=self.teacher.answers,
            plain=self.data.plain is not None,
            sets=self._sets,
        )
        require_context(
            self.teacher_context,
            answers=self.teacher.answers,
            calibrated=self.teacher.calibrated,
            drawn_gold=self.data.gold is not None,
            combine=self.combine,
            students=self.students,
        )
        second = next((name for name, teacher in self.teachers.items() if teacher.general), None)
        if second is not None:
            raise ValueError(
                f"teachers.{second}.general is of a further teacher, and students learn plain text beside the first "
                "one: remove it, or make that teacher the first"
            )
        return self

    def _teachers_agree(self) -> None:
        """Several teachers are combined by what their heads say, and of one alone the inside is learned."""
        if not self.teachers:
            return
        for name, teacher in self.every_teacher.items():
            if teacher.answers != "head":
                raise ValueError(
                    f"{key_of_teacher(name)}.answers={teacher.answers}, and several teachers are combined by the "
                    "logits of their heads: set answers: head, or leave the teacher out"
                )
        stages = [stage for student in self.students.values() for stage in student.stages]
        if not any(stage.needs_answers for stage in stages):
            raise ValueError(
                f"teachers names {', '.join(self.teachers)}, and no stage learns what a teacher answers: set an "
                "objective that does, or remove teachers"
            )
        if isinstance(self.combine, TeacherRoute) and any(stage.features for stage in stages):
            raise ValueError(
                "combine.kind=route gives each row a teacher of its own, and features learn from inside the first one: "
                "remove features, or set combine.kind: mixture"
            )

    @property
    def every_teacher(self) -> dict[str, TaskTeacherConfig]:
        """All teachers by their names, the first one first."""
        return {FIRST: self.teacher, **self.teachers}

    @property
    def needs_teacher_weights(self) -> bool:
        """Whether the weights of the first teacher have to be here.

        Of a language model behind a door only those students need them that are cut out of it.
        """
        return not self.teacher.in_words_elsewhere or any(
            student.general or student.start.in_teacher for student in self.students.values()
        )

    @property
    def context_in_words(self) -> str:
        """What teachers see that students never do; "" where they see the same."""
        return context_in_words(self.teacher_context)

    def of_teacher(self, name: str) -> TaskDistillConfig:
        """The same experiment with one of its teachers alone; features are learned of the first."""
        only = {"teacher": self.every_teacher[name], "teachers": {}, "combine": None}
        if name == FIRST:
            return self.model_copy(update=only)
        students = {
            name: student.model_copy(
                update={"stages": tuple(stage.model_copy(update={"features": ()}) for stage in student.stages)}
            )
            for name, student in self.students.items()
        }
        return self.model_copy(update=only | {"students": students})

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said = unless_unused(dump(self))
        # An experiment without one is written, and addressed, as it was before there were any.
        later = ("teacher_context", "privacy", "content", "audit")
        return {key: value for key, value in said.items() if key not in later or value is not None}

    @property
    def _sets(self) -> tuple[str, ...]:
        """The sets of examples that there are."""
        return (GOLD, *((TRANSFER,) if self.data.has_transfer else ()), *self.data.augment)

    def _twins_differ(self) -> None:
        """A student without a teacher bears the name of another one and an ending, which nobody else may have."""
        asked = {"-gold": self.evaluation.gold_baseline, "-augmented": self.evaluation.augmented_baseline}
        for name in self.students:
            for ending in (each for each, wanted in asked.items() if wanted):
                if name.endswith(ending) and name.removesuffix(ending) in self.students:
                    raise ValueError(
                        f"students.{name} has the name that {name.removesuffix(ending)} has in the comparison when it "
                        "is trained without a teacher: choose another"
                    )
        if self.evaluation.augmented_baseline and not any(map(self.augmented_gold, self.students)):
            raise ValueError(
                "evaluation.augmented_baseline=true needs data.augment with a set of train alone that keeps its "
                "labels, in data of a student's stage: name one, or set augmented_baseline: false"
            )

    def _fits_live(self, key: str, stage: TaskStageConfig, *, student: TaskStudentConfig, name: str) -> None:
        """Refuse a teacher beside the student that reads less than it, or that is one of several."""
        if stage.teacher != "live":
            return
        if self.teachers:
            raise ValueError(
                f"{key}.teacher=live has one teacher read beside the student, and teachers names {len(self.teachers)} "
                "more: remove one of them"
            )
        if (student.max_tokens or 0) > self.teacher.max_tokens:
            raise ValueError(
                f"students.{name}.max_tokens={student.max_tokens} is more than teacher.max_tokens="
                f"{self.teacher.max_tokens}, and teacher=live of {key} reads what the student reads: lower the first "
                "or raise the second"
            )

    def augmented_gold(self, student: str) -> tuple[str, ...]:
        """The sets of augmented texts that a student learns from and that have gold labels."""
        named = [name for stage in self.students[student].stages for name in stage.data]
        known = dict.fromkeys(name for name in named if name in self.data.augment)
        return tuple(name for name in known if self._has_gold(name))

    def _sets_exist(self, key: str, stage: TaskStageConfig) -> None:
        known = self._sets
        unknown = next((name for name in stage.data if name not in known), None)
        if unknown == TRANSFER:
            raise ValueError(
                f"{key}.data names {TRANSFER}, and data.transfer is empty: name files of unlabelled texts there"
            )
        if unknown is not None:
            raise ValueError(f"{key}.data names {unknown}, and there are {', '.join(known)}: name one of them")
        if stage.features and self.teacher.answers != "head":
            raise ValueError(
                f"{key}.features learns from inside the teacher, and teacher.answers={self.teacher.answers} has it "
                "answer in an engine that shows nothing of that: set answers: head, or remove features"
            )
        if stage.needs == "logits" and self.teacher.answers == "text":
            raise ValueError(
                f"{key}.objective={stage.objective} needs the teacher's logits and teacher.answers=text gives its word "
                "alone: set objective: hard_labels with labels: teacher"
            )
        self._copies_exist(key, stage)
        bare = next((name for name in stage.data if not self._has_gold(name)), None)
        if stage.needs == "gold" and bare is not None:
            raise ValueError(
                f"{key}.data names {bare}, whose examples have no gold label, and objective={stage.objective} needs "
                f"one: leave {bare} out, or set labels: teacher"
            )

    def _copies_exist(self, key: str, stage: TaskStageConfig) -> None:
        """Refuse views of which there are too few copies, and a live teacher who cannot read what is learned."""
        live = stage.teacher == "live"
        if live and self.teacher.answers != "head":
            raise ValueError(
                f"{key}.teacher=live reads beside the student, and teacher.answers={self.teacher.answers} has it "
                "answer in an engine: set answers: head, or remove teacher"
            )
        for name in self.augmented(stage):
            made = self.data.augment[name]
            if stage.views is not None and stage.views > made.copies:
                raise ValueError(
                    f"{key}.views={stage.views} is more than data.augment.{name}.copies={made.copies}: raise it, or "
                    "lower views"
                )
            if live and made.kind != "rules":
                raise ValueError(
                    f"{key}.teacher=live changes texts anew in every epoch, and data.augment.{name} has "
                    f"kind={made.kind}, which is made once: name a set of kind=rules, or remove teacher"
                )

    def augmented(self, stage: TaskStageConfig) -> tuple[str, ...]:
        """The sets of a stage that are made from others."""
        return tuple(name for name in stage.data if name in self.data.augment)

    def read_sets(self, stage: TaskStageConfig) -> tuple[str, ...]:
        """The sets that a stage reads: those of its data, and with turns the texts that stand for their own copies."""
        sources = (each for name in self.augmented(stage) for each in self.data.augment[name].of)
        return tuple(dict.fromkeys((*stage.data, *(sources if stage.turns else ()))))

    def drawn_anew(self) -> dict[str, int]:
        """For how many epochs each augmented set is drawn for live teachers, where it is."""
        found: dict[str, int] = {}
        for stage in (stage for student in self.students.values() for stage in student.stages):
            for name in self.augmented(stage) if stage.teacher == "live" else ():
                found[name] = max(found.get(name, 0), stage.turns or 0)
        return found

    def _has_gold(self, name: str) -> bool:
        """Whether the examples of a set have gold labels, or are made from such as have."""
        if name in OWN_SETS:
            return name == GOLD
        made = self.data.augment[name]
        return made.keeps_label and made.of == (GOLD,)

    def digest(self) -> str:
        """SHA-256 (hex) of everything that changes the numbers."""
        # Audits look at students that are finished.
        said = self.model_dump(mode="json", exclude={"runtime", "budgets", "prices", "audit"})
        # Where a teacher answers changes no number: who answers is held against its weights.
        for teacher in (said["teacher"], *said.get("teachers", {}).values()):
            teacher.pop("serve", None)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
