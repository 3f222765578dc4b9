"""Untouched students: models of their own, or derived from the teacher.

Most are made before the teacher is asked for anything, so that one that cannot work costs nothing. What the teacher's
activations decide has to wait for the training sequences that they are measured on; of those only the sizes are checked
beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.fingerprint import fingerprint_model
from configs import ModelError
from configs.architecture import read_architecture
from configs.model_files import speech_sha256
from configs.places import FINGERPRINTS, absolute_root
from configs.schema import ModelShape
from configs.starts import InitConfig
from orchestration.cluster.calibration import DeriveJob
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.other_tokens import OtherTokens, has_other_tokens
from orchestration.inputs.teachers import Teacher
from orchestration.lineage.records import MADE_OF
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import RunSettings
from student_train.starts.derive import check_widths, derive_student
from student_train.starts.sizes import kept_layers, planned_shape

TokensOf = Callable[[ModelFiles], OtherTokens]
"""What a student reads that has another tokenizer than its teacher."""


@dataclass(frozen=True, slots=True)
class Start:
    """An untouched student: what it is addressed by, where it lies, its sizes, and what it is in words.

    `tokens` is what it reads where it has another tokenizer than its teacher.
    """

    digest: str
    directory: Path
    shape: ModelShape
    origin: str
    tokens: OtherTokens | None = None

    def vocab(self, teacher: Teacher) -> int:
        """The number of tokens that it predicts: the teacher's, or its own."""
        return teacher.files.vocab if self.tokens is None else self.tokens.files.vocab


def start_shape(init: InitConfig, *, teacher: Teacher) -> ModelShape:
    """The sizes of a student that is derived from the teacher, before anything is made.

    Raises:
        ConfigError: more than the teacher has, or sizes that do not go together.
        ModelError: the teacher is built in a way that cannot be narrowed.
    """
    if init.narrows:
        return check_widths(teacher.files.directory, init)[1]
    return planned_shape(init, teacher=teacher.files.shape)


def prepare_start(
    init: InitConfig, *, teacher: Teacher, artifacts: Artifacts, models_root: Path, reads: TokensOf
) -> Start:
    """Make an untouched student that needs no calibration, unless it is there.

    `reads` is asked about a model with another vocabulary than the teacher's, and may refuse it.

    Raises:
        ConfigError: a layer that the teacher does not have.
        ModelError: it has fewer embedding rows than the teacher has tokens.
    """
    if init.model is not None:
        model = materialise(init.model, models_root=models_root)
        tokens = reads(model) if has_other_tokens(model, teacher.files) else None
        if tokens is None:
            _require_rows(model, teacher.files)
        prints = fingerprint_model(model.directory, memo=models_root / FINGERPRINTS)
        made_of = _made_of(model.directory, weights=prints.weights_sha256, config=prints.config_sha256)
        return Start(digest_of(model=made_of), model.directory, model.shape, model.label, tokens)
    kept = kept_layers(init.keep_layers, total=teacher.files.shape.layers, by=init.layers_by)
    cut_of: dict[str, object] = {"teacher": _made_of_teacher(teacher), "kept": kept}

    def make(directory: Path) -> None:
        derive_student(teacher.files.directory, directory, keep_layers=kept)

    return _derived(init, cut_of, teacher=teacher, artifacts=artifacts, make=make)


def calibrated_start(
    init: InitConfig, *, lesson: Lesson, settings: RunSettings, derive: Callable[[DeriveJob], None]
) -> Start:
    """Make an untouched student whose layers or widths the teacher's activations choose, unless it is there.

    They are measured on the lesson's first train view. `derive` does the work, in a process of its own.
    """
    teacher = lesson.teacher
    view = _train_view(lesson.views)
    made_of = {
        "teacher": _made_of_teacher(teacher),
        "init": init.model_dump(mode="json"),
        "train": lesson.views[view].digest,
    }

    def make(directory: Path) -> None:
        derive(
            DeriveJob(
                init=init,
                teacher_dir=teacher.files.directory.resolve(),
                out_dir=directory.resolve(),
                cache_root=absolute_root(settings.config.runtime.cache_root),
                identity=teacher.by_weights,
                view=lesson.paths[view].resolve(),
                accelerator=settings.device,
                log_file=settings.logs / "calibration.log",
            )
        )

    return _derived(init, made_of, teacher=teacher, artifacts=settings.artifacts, make=make)


def training_bytes(shapes: Iterable[ModelShape]) -> int:
    """Room that training needs: every student's weights, and three checkpoints of the largest while it trains.

    A checkpoint holds 16 bytes a parameter (bfloat16 weights, those of the best so far, float32 copy, two moments); two
    are kept and a third is being written.
    """
    sizes = [shape.parameters for shape in shapes]
    return 2 * sum(sizes) + 3 * 16 * max(sizes)


def _made_of_teacher(teacher: Teacher) -> dict[str, str]:
    identity = teacher.by_weights
    return _made_of(teacher.files.directory, weights=identity.weights_sha256, config=identity.config_sha256)


def _made_of(model_dir: Path, *, weights: str, config: str) -> dict[str, str]:
    """Digests of all that a student takes over from a model: weights, config, tokenizer, templates.

    A mended `rope_scaling`, or another template, is another start although every weight is the same.
    """
    return {"weights": weights, "config": config, "speech": speech_sha256(model_dir)}


def _derived(
    init: InitConfig,
    made_of: Mapping[str, object],
    *,
    teacher: Teacher,
    artifacts: Artifacts,
    make: Callable[[Path], None],
) -> Start:
    """A start that is derived from the teacher: what is there, or what `make` writes into the directory it is given."""
    digest = digest_of(**made_of)
    directory = artifacts.init_dir(digest)
    with artifacts.claim(digest, what=f"the untouched student {directory}"):
        if not artifacts.has_start(digest):
            make(directory)
            artifacts.keep_start(digest, {MADE_OF: made_of})
    kept = (f"{name} {value}" for name, value in init.model_dump(mode="json", exclude_none=True).items())
    origin = f"derived from {teacher.files.label}: {', '.join(kept)}"
    return Start(digest, directory, read_architecture(directory).shape, origin)


def _train_view(names: Iterable[str]) -> str:
    return next(name for name in names if name.endswith("-train"))


def _require_rows(student: ModelFiles, teacher: ModelFiles) -> None:
    """Refuse a student that has no embedding for a token of the teacher's."""
    if student.shape.vocab < teacher.vocab:
        raise ModelError(
            f"student {student.label} has {student.shape.vocab:,} embedding rows for the teacher's {teacher.vocab:,} "
            "tokens: resize its embedding first"
        )
