"""Students as a chain of digests: the start, then every stage from the one before.

What changes the numbers is in the digest (weights, data view, stage); what changes only speed (workers, ZeRO stage,
micro-batch) is not. A link whose artifact exists is not made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from configs.places import CURVES
from configs.schema import DistillConfig
from configs.stages import StageConfig
from orchestration.inputs.plain_text import PlainTexts, read_plain_texts
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.curves import read_curve
from orchestration.pipeline.links import selected_step
from orchestration.pipeline.starts import Start
from student_train.handoff.rollouts import RolloutExchange
from student_train.job import TaughtInside
from student_train.training.selection import CRITERIA, OWN_ANSWERS, worsened


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of one student: where it starts, and where it ends.

    `origin` says in words what it starts from; `plain` is the text that it learns beside rollouts, `taught` the teacher
    that reads beside it. `digest` is that of `made_of`.
    """

    stage: StageConfig
    digest: str
    start_dir: Path
    output_dir: Path
    work_dir: Path
    origin: str
    plain: PlainTexts | None = None
    taught: TaughtInside | None = None
    made_of: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Student:
    """A student with all its links, and what has to be said about it beside its numbers."""

    name: str
    start: Start
    links: tuple[Link, ...]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What the trained student is addressed by."""
        return self.links[-1].digest

    @property
    def dtype(self) -> str:
        """What the trained model is stored in, measured in and served in: what its last stage computed with."""
        return self.links[-1].stage.dtype

    @property
    def start_dtype(self) -> str:
        """What the untouched model is measured and served in: what the first stage takes it over in."""
        return self.links[0].stage.dtype

    @property
    def directory(self) -> Path:
        """The trained model."""
        return self.links[-1].output_dir


def plain_texts(
    config: DistillConfig, name: str, *, positions: int, tokenizer: PreTrainedTokenizerBase
) -> list[PlainTexts | None]:
    """The plain text that each stage of a student learns beside rollouts, in sequences of at most `positions` tokens.

    Raises:
        DataError: it cannot be read, or leaves nothing to learn.
    """
    return [
        read_plain_texts(
            stage,
            key=f"students.{name}.stages.{number}.pretrain",
            tokenizer=tokenizer,
            positions=positions,
            micro_batch_tokens=config.runtime.training.micro_batch_tokens,
        )
        for number, stage in enumerate(config.students[name].stages)
    ]


def chain(
    name: str,
    *,
    stages: Sequence[StageConfig],
    plain: Sequence[PlainTexts | None],
    start: Start,
    learned: Mapping[str, str],
    vocab: int,
    artifacts: Artifacts,
    taught: TaughtInside | None = None,
) -> Student:
    """The links of one student, addressed but not made; `plain` is the text of each stage.

    `learned` are the digests of what there is to learn from and to measure on, by its name (`Lesson.digests`). `taught`
    is the teacher of stages beside which it reads.
    """
    links: list[Link] = []
    digest, directory, origin = start.digest, start.directory, start.origin
    for stage, texts in zip(stages, plain, strict=True):
        made_of: dict[str, object] = {
            "start": digest,
            "stage": stage.identity(),
            "train": learned[stage.train_view],
            "dev": learned[stage.dev_view],
            "vocab": vocab,
            # Where its matrix has more rows than there are tokens, its distribution is over all of them.
            **({} if start.shape.vocab == vocab else {"rows": start.shape.vocab}),
            **({} if texts is None else {"plain_text": texts.digest}),
            **({} if stage.turns is None else {"turns": learned[stage.turns]}),
            **_replayed(stage),
            **({"taught": taught.identity} if stage.reads_live and taught is not None else {}),
        }
        digest = digest_of(**made_of)
        output = artifacts.student_dir(digest)
        beside = taught if stage.reads_live else None
        work = artifacts.work_dir(digest)
        links.append(Link(stage, digest, directory, output, work, origin, texts, beside, made_of))
        directory, origin = output, f"{origin}; then {stage.objective} for {_length(stage)}"
    return Student(name, start, tuple(links))


def stage_notes(student: Student, link: Link, *, artifacts: Artifacts) -> list[str]:
    """What has to be said about a stage that is over: that it made its student no better, with what can be done."""
    step = selected_step(link, artifacts=artifacts)
    if step is None:
        return []
    stage, number = link.stage, student.links.index(link)
    if step == 0:
        return [
            f"students.{student.name}.stages.{number} ({stage.objective}): no step was better than the start, which is "
            "kept (keep_start: true); set a lower learning_rate, or leave the stage out"
        ]
    found = worsened(read_curve(link.output_dir / CURVES), select=stage.select, selected_step=step)
    by = CRITERIA.get(stage.select)
    cure = "" if stage.select == "last" else "keep_start: true, "
    if by is not None and by not in found and OWN_ANSWERS not in found:
        cure = f"select: dev_kl and keep_start: true (by {by} it became better), "
    return [
        f"students.{student.name}.stages.{number} ({stage.objective}) made the student worse: {name} {start:.4f} -> "
        f"{end:.4f} at step {step}; set {cure}a lower learning_rate, or leave the stage out"
        for name, (start, end) in list(found.items())[:1]
    ]


def _replayed(stage: StageConfig) -> dict[str, str]:
    if stage.rollout is None or stage.rollout.replay_from is None:
        return {}
    return {"replayed": RolloutExchange(stage.rollout.replay_from).digest(stage.rollout.count)}


def _length(stage: StageConfig) -> str:
    if stage.rollout is not None:
        return f"{stage.rollout.count} rollouts"
    return f"{stage.steps} steps" if stage.steps is not None else f"{stage.epochs:g} epochs"
