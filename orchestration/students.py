"""Students as a chain of digests: the start, then every stage from the one before.

What changes the numbers is in the digest (weights, data view, stage); what changes only speed (workers, ZeRO stage,
micro-batch) is not. A link whose artifact exists is not made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache import CacheView, TeacherIdentity
from cache.fingerprint import fingerprint_model
from configs import ModelError
from configs.places import absolute_root
from configs.schema import DistillConfig
from configs.stages import InitConfig, StageConfig
from orchestration.artifacts import Artifacts, digest_of, write_json
from orchestration.curves import CURVES
from orchestration.models import ModelFiles, materialise
from orchestration.shapes import read_shape
from student_train.derive import derive_student, kept_layers
from student_train.job import TrainJob

SUMMARY = "stillroom.json"


@dataclass(frozen=True, slots=True)
class Start:
    """An untouched student. `kept` are the teacher's layers it is made of; None for a model of its own."""

    digest: str
    directory: Path
    kept: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of one student: where it starts, what it reads and where it ends."""

    stage: StageConfig
    digest: str
    start_dir: Path
    output_dir: Path
    work_dir: Path
    train_view: str
    dev_view: str

    @property
    def finished(self) -> bool:
        """Whether the trained model is there."""
        return (self.output_dir / SUMMARY).exists()


@dataclass(frozen=True, slots=True)
class Student:
    """A student with all its links."""

    name: str
    start: Start
    links: tuple[Link, ...]

    @property
    def digest(self) -> str:
        """What the trained student is addressed by."""
        return self.links[-1].digest

    @property
    def directory(self) -> Path:
        """The trained model."""
        return self.links[-1].output_dir


def prepare_start(
    init: InitConfig, *, teacher: ModelFiles, teacher_weights: str, artifacts: Artifacts, models_root: Path
) -> Start:
    """Make the untouched student, unless it is there.

    Raises:
        ConfigError: a layer that the teacher does not have.
        ModelError: its vocabulary is not the teacher's.
    """
    if init.model is not None:
        model = materialise(init.model, models_root=models_root)
        _require_same_tokens(model, teacher)
        weights = fingerprint_model(model.directory, memo=models_root / "fingerprints.json").weights_sha256
        return Start(digest_of(model=weights), model.directory, None)
    assert init.keep_layers is not None
    kept = kept_layers(init.keep_layers, total=teacher.shape.layers)
    digest = digest_of(teacher=teacher_weights, kept=kept)
    directory = artifacts.init_dir(digest)
    with artifacts.claim(digest):
        if not directory.exists():
            derive_student(teacher.directory, directory, keep_layers=kept)
    return Start(digest, directory, kept)


def chain(
    name: str,
    *,
    config: DistillConfig,
    start: Start,
    views: Mapping[str, CacheView],
    vocab: int,
    artifacts: Artifacts,
) -> Student:
    """The links of one student, addressed but not made."""
    links: list[Link] = []
    digest, directory = start.digest, start.directory
    for stage in config.students[name].stages:
        train_view, dev_view = f"{stage.source}-train", f"{stage.source}-dev"
        digest = digest_of(
            start=digest,
            stage=stage.model_dump(mode="json"),
            train=views[train_view].digest,
            dev=views[dev_view].digest,
            vocab=vocab,
        )
        output = artifacts.student_dir(digest)
        links.append(Link(stage, digest, directory, output, artifacts.work_dir(digest), train_view, dev_view))
        directory = output
    return Student(name, start, tuple(links))


def train_link(
    link: Link,
    *,
    config: DistillConfig,
    identity: TeacherIdentity,
    view_paths: Mapping[str, Path],
    vocab: int,
    accelerator: str,
    artifacts: Artifacts,
    train: Callable[[TrainJob], Mapping[str, object]],
) -> bool:
    """Train one stage unless its artifact exists; whether it was trained now.

    `train` runs the job and returns the fields of its `TrainResult`.
    """
    with artifacts.claim(link.digest):
        if link.finished:
            return False
        runtime = config.runtime
        result = train(
            TrainJob(
                stage=link.stage,
                settings=runtime.training,
                model_dir=link.start_dir.resolve(),
                cache_root=absolute_root(runtime.cache_root),
                identity=identity,
                train_view=view_paths[link.train_view].resolve(),
                dev_view=view_paths[link.dev_view].resolve(),
                work_dir=link.work_dir.resolve(),
                output_dir=link.output_dir.resolve(),
                vocab=vocab,
                accelerator="gpu" if accelerator == "gpu" else "cpu",
                teacher=config.teacher.model.label,
                licence=config.teacher.licence,
            )
        )
        shutil.copy(link.work_dir / CURVES, link.output_dir / CURVES)
        # The summary comes last: it marks the artifact as finished.
        write_json(link.output_dir / SUMMARY, {"digest": link.digest, **result})
        shutil.rmtree(link.work_dir, ignore_errors=True)
        return True


def _require_same_tokens(student: ModelFiles, teacher: ModelFiles) -> None:
    """Distillation compares distributions over token ids, so both must mean the same by every id."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        differing = len(set(ours.items()) ^ set(theirs.items()))
        raise ModelError(
            f"student {student.label} has another vocabulary than teacher {teacher.label} ({len(ours):,} and "
            f"{len(theirs):,} tokens, {differing:,} entries differ): choose a student of the teacher's family, "
            "or derive one with keep_layers"
        )
    if student.shape.vocab < teacher.vocab:
        raise ModelError(
            f"student {student.label} has {student.shape.vocab:,} embedding rows for the teacher's {teacher.vocab:,} "
            "tokens: resize its embedding first"
        )


def training_bytes(starts: Mapping[str, Start]) -> int:
    """Room that training needs: every student's weights, and three checkpoints of the largest while it trains.

    A checkpoint holds 14 bytes a parameter (bfloat16 weights, float32 copy, two moments); two are kept and a third is
    being written.
    """
    sizes = [parameters_of(start.directory) for start in starts.values()]
    return 2 * sum(sizes) + 3 * 14 * max(sizes)


def parameters_of(directory: Path) -> int:
    """Number of weights of a plain model directory, from its shape."""
    return read_shape(directory / "config.json").parameters
