"""A language model's teacher that reads beside its student: what can be matched of it, and the memory that it takes.

Sizes are enough for both, so what cannot work is refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from configs import ConfigError
from configs.models import ModelShape
from configs.schema import DistillConfig, TrainingSettings
from configs.stages import StageConfig
from configs.task_features import InsideSizes
from orchestration.inputs.shapes import PlannedShape
from orchestration.plan.memory import DTYPE_BYTES, HEAD_CHUNK_BYTES, MemoryItem, activation_bytes, count_in_words

DISTRIBUTION_TABLES = 4
"""In chunks of the fused loss: what whole distributions of both take on their way to a divergence and its gradient."""


def require_matching(
    config: DistillConfig, *, teacher: PlannedShape, students: Mapping[str, PlannedShape | None]
) -> None:
    """Refuse features whose layers or sizes do not go together, of every student whose shape is known.

    Raises:
        ConfigError: naming the term, both sides and the cure.
    """
    for name, student in config.students.items():
        above = teacher_of(config, name, teacher=teacher, students=students)
        ours = students[name]
        if ours is None or above is None:
            continue
        for number, stage in enumerate(student.stages):
            for place, term in enumerate(stage.features):
                try:
                    term.matched(student=_inside(ours.shape), teacher=_inside(above.shape))
                except ConfigError as error:
                    raise ConfigError(f"students.{name}.stages.{number}.features.{place}: {error}") from error


def teacher_of(
    config: DistillConfig, name: str, *, teacher: PlannedShape, students: Mapping[str, PlannedShape | None]
) -> PlannedShape | None:
    """The shape of whoever teaches a student: the teacher, or an assistant; None when that one's is not known."""
    assistant = config.students[name].teacher
    return teacher if assistant is None else students[assistant]


def live_memory(
    teacher: PlannedShape | None,
    *,
    student: ModelShape,
    stage: StageConfig,
    settings: TrainingSettings,
    dtype: str,
    longest: int,
) -> tuple[MemoryItem, ...]:
    """What a teacher takes that reads beside the student, whole in every process; nothing without one.

    It leaves its last states, or those of all layers where any are compared; one layer is computed at a time. Where
    attention is compared the scores of all layers are kept, the student's twice for its backward pass; `longest` are
    the tokens of the longest sequence, each of which has so many scores in every head. What the divergence makes of
    whole distributions comes beside the head's own tables.
    """
    if not stage.reads_live or teacher is None:
        return ()
    shape, wide, tokens = teacher.shape, DTYPE_BYTES[dtype], settings.micro_batch_tokens
    layers = shape.layers + 1 if stage.features else 1
    per_token = int(layers * shape.hidden * wide) + activation_bytes(shape, dtype=dtype) // shape.layers
    items = [
        MemoryItem("live teacher", shape.parameters * wide, f"{count_in_words(shape.parameters)} x {wide:g} B"),
        MemoryItem("its states", float(tokens * per_token), f"micro_batch_tokens {tokens} x {per_token:,} B"),
    ]
    if stage.teacher == "live":
        held = float(DISTRIBUTION_TABLES * HEAD_CHUNK_BYTES)
        items.append(MemoryItem("distributions", held, f"{DISTRIBUTION_TABLES} x {HEAD_CHUNK_BYTES:,} B, measured"))
    if stage.reads_attention:
        theirs, ours = shape.layers * shape.heads * wide, student.layers * student.heads * DTYPE_BYTES[stage.dtype]
        scores = int(theirs + 2 * ours) * longest
        items.append(MemoryItem("attention", float(tokens * scores), f"micro_batch_tokens {tokens} x {scores:,} B"))
    return tuple(items)


def longest_sequence(config: DistillConfig, stage: StageConfig) -> int:
    """Tokens of the longest sequence that a stage learns from, at most."""
    if stage.source == "plain" and config.data.plain is not None:
        return config.data.plain.max_tokens
    return config.data.max_prompt_tokens + config.generation.max_new_tokens


def _inside(shape: ModelShape) -> InsideSizes:
    return InsideSizes((shape.hidden,) * (shape.layers + 1), shape.heads)
