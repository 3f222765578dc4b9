"""The untouched students of a task: each made once as an artifact, addressed by what was asked for and made from.

Networks and tokenizers are imported where one is made or read: they take seconds to load, and a plan is there at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.canonical import canonical, token_bytes
from cache.fingerprint import ModelFingerprint, config_sha256, fingerprint_model
from configs import ConfigError, ModelError
from configs.architecture import TextModel, read_text_model
from configs.model_files import has_weights, speech_sha256
from configs.models import ModelSource
from configs.places import FINGERPRINTS
from configs.task import TaskKind
from configs.task_starts import BagStart, TaskStart, TransformerStart
from orchestration.inputs.models import locate_model
from orchestration.lineage.records import MADE_OF
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.pipeline.tasks.lessons import Reader
from student_train.starts.sizes import kept_layers

if TYPE_CHECKING:
    from student_train.starts.task_layers import Rows


@dataclass(frozen=True, slots=True)
class StartsOf:
    """What all starts of an experiment have in common: the teacher's directory, the task, and where artifacts lie.

    `rows` are token ids of texts as the teacher reads them, for what is measured. Where `teacher_dir` holds no weights,
    because the teacher answers behind a door, `teacher_weights` is their digest.
    """

    teacher_dir: Path
    kind: TaskKind
    labels: tuple[str, ...]
    models_root: Path
    artifacts: Artifacts
    rows: Rows = ()
    teacher_weights: str | None = None

    def content_of_teacher(self) -> dict[str, str]:
        """What the teacher is addressed by; see `content_of_model`."""
        if self.teacher_weights is None or has_weights(self.teacher_dir):
            return content_of_model(self.teacher_dir, models_root=self.models_root)
        return _content(self.teacher_dir, ModelFingerprint(self.teacher_weights, config_sha256(self.teacher_dir)))


@dataclass(frozen=True, slots=True)
class MadeStart:
    """An untouched student: what it is addressed by, where it lies, what it is in words.

    It `knows_task` where its head was trained before, as that of a teacher from which it keeps layers. What is still to
    be trained has the tokenizer and the sizes of the model that it is `like`. It
    `begins_with` a model that it names, or a part of it.
    """

    digest: str
    directory: Path
    origin: str
    knows_task: bool = False
    like: Path | None = None
    begins_with: ModelSource | None = None

    @property
    def described(self) -> Path:
        """Where its tokenizer and its config.json can be read now."""
        return self.like or self.directory


def made_start(start: TaskStart, *, seed: int, of: StartsOf) -> MadeStart:
    """Make an untouched student unless it is there.

    Raises:
        ConfigError: sizes that the teacher does not have, or a network that cannot do such a task.
        ModelError: a model that does not load, that has another head, or that cannot be cut.
    """
    from student_train.starts.task_starts import TaskStartSettings, make_task_start

    settings = TaskStartSettings(start, of.kind, of.labels, seed)
    own = start.model if isinstance(start, TransformerStart) else None
    model_dir = None if own is None else locate_model(own, models_root=of.models_root)
    rows = of.rows[: start.calibration_rows] if isinstance(start, TransformerStart) and settings.measured else ()
    made_of: dict[str, object] = {
        "task_start": settings.identity(),
        "teacher": of.content_of_teacher(),
        **({} if model_dir is None else {"model": content_of_model(model_dir, models_root=of.models_root)}),
        **({"rows": rows_sha256(rows)} if len(rows) else {}),
    }
    digest = digest_of(**made_of)
    directory = of.artifacts.init_dir(digest)
    with of.artifacts.claim(digest, what=f"the untouched student {directory}"):
        if not of.artifacts.has_start(digest):
            make_task_start(settings, teacher_dir=of.teacher_dir, out=directory, model_dir=model_dir, rows=rows)
            of.artifacts.keep_start(digest, {MADE_OF: made_of})
    source = of.teacher_dir if model_dir is None else model_dir
    own_head = isinstance(start, TransformerStart) and start.shape is None and _has_head(source)
    return MadeStart(digest, directory, in_words(start), knows_task=own_head, begins_with=own)


def require_start(
    start: TaskStart, *, name: str, kind: TaskKind, teacher_dir: Path, own: TextModel | None = None
) -> None:
    """Refuse the start of student `name` that cannot work, before the teacher is asked anything.

    `own` is the model that it starts from, where it has one that is at hand.

    Raises:
        ConfigError: a network that cannot do such a task, or more than the teacher or its model has.
        ModelError: it reads with the tokenizer of a teacher that does not tell a question from its passage.
    """
    if isinstance(start, BagStart) and kind != "classification":
        raise ConfigError(
            f"students.{name}.start.kind=bag is for classification, and the task is {kind}: choose recurrent or "
            "transformer"
        )
    if kind == "extractive_qa" and not (isinstance(start, TransformerStart) and start.model is not None):
        from student_train.models.task_tokenizer import load_task_tokenizer, require_pairs

        require_pairs(load_task_tokenizer(teacher_dir), teacher_dir)
    teacher = read_text_model(teacher_dir)
    if isinstance(start, TransformerStart):
        whole = teacher if start.model is None else own
        if whole is not None:
            _require_kept(start, name=name, whole=whole)
    elif start.embeddings == "teacher" and (start.embedding_size or 0) > teacher.hidden:
        raise ConfigError(
            f"students.{name}.start.embedding_size={start.embedding_size} but the teacher's embeddings have "
            f"{teacher.hidden}: set at most {teacher.hidden}, or embeddings: random"
        )


def _require_kept(start: TransformerStart, *, name: str, whole: TextModel) -> None:
    """Refuse to keep more layers or widths than there are."""
    if start.keep_layers is not None:
        # Which layers have most influence is measured later; how many there are is known.
        by = "linspace" if start.layers_by == "block_influence" else start.layers_by
        try:
            kept_layers(start.keep_layers, total=whole.layers, by=by)
        except ConfigError as error:
            raise ConfigError(f"students.{name}.start.{error}") from error
    for key, most in (
        ("attention_heads", whole.heads),
        ("mlp_channels", whole.mlp),
        ("hidden_size", whole.hidden),
    ):
        wanted = getattr(start, key)
        if wanted is not None and wanted > most:
            raise ConfigError(f"students.{name}.start.{key}={wanted} but the teacher has {most}: keep at most {most}")


def reader_of(start: MadeStart, *, max_tokens: int) -> Reader:
    """How an untouched student reads texts: up to `max_tokens`, or what it can. It is not loaded.

    Raises:
        ModelError: its tokenizer does not load.
    """
    from student_train.models.task_model import longest_text
    from student_train.models.task_tokenizer import load_task_tokenizer

    described = start.described
    tokenizer = load_task_tokenizer(described)
    return Reader(tokenizer, speech_sha256(described), min(max_tokens, longest_text(described)))


def in_words(start: TaskStart) -> str:
    """What a start is, for people."""
    if not isinstance(start, TransformerStart):
        size = "" if start.embedding_size is None else f" of {start.embedding_size}"
        over = f"over {start.embeddings} embeddings{size}"
        return f"bag {over}" if start.kind == "bag" else f"{start.layers}-layer Bi{start.cell.upper()} {over}"
    if start.shape is not None:
        return f"random encoder of {start.shape.layers} layers x {start.shape.hidden}"
    kept, whole = start.keep_layers, "the teacher" if start.model is None else start.model.label
    if kept is None:
        return "a narrower teacher" if start.model is None else whole
    layers = f"layers {', '.join(map(str, kept))}" if isinstance(kept, tuple) else f"{kept} layers ({start.layers_by})"
    return f"{layers} of {whole}"


def rows_sha256(rows: Rows) -> str:
    """SHA-256 (hex) of token ids in their order; the texts themselves are not to stand in what is kept of a start."""
    return hashlib.sha256(canonical("stillroom/rows/1", *(token_bytes(row) for row in rows))).hexdigest()


def content_of_model(directory: Path, *, models_root: Path) -> dict[str, str]:
    """What a model is addressed by: digests of its weights, its configuration, and its tokenizer."""
    return _content(directory, fingerprint_model(directory, memo=models_root / FINGERPRINTS))


def _content(directory: Path, prints: ModelFingerprint) -> dict[str, str]:
    return {
        "weights": prints.weights_sha256,
        "config": prints.config_sha256,
        "speech": speech_sha256(directory),
    }


def _has_head(directory: Path) -> bool:
    from student_train.models.task_model import stored_task

    try:
        stored_task(directory)
    except ModelError:
        return False
    return True
