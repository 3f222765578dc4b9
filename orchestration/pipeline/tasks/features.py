"""What students take from inside their teacher, refused where it cannot work, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from configs import ConfigError
from configs.architecture import read_text_model
from configs.model_files import speech_sha256
from configs.task_experiment import TaskDistillConfig
from configs.task_starts import TransformerStart
from orchestration.inputs.models import is_at_hand, locate_model
from orchestration.plan.task_features import wanted_states
from orchestration.plan.task_placement import own_models


def require_features(config: TaskDistillConfig, *, teacher_dir: Path) -> None:
    """Refuse features whose layers, sizes, tokenizers or attention do not go together.

    Raises:
        ConfigError: naming the term, both sides and the cure.
        ModelError: attention that cannot be looked into.
    """
    wanted_states(config, teacher=read_text_model(teacher_dir), models=own_models(config))
    for name, student in config.students.items():
        if not any(stage.reads_live for stage in student.stages):
            continue
        directories = [teacher_dir]
        start = student.start
        if isinstance(start, TransformerStart) and start.model is not None and is_at_hand(start.model):
            directories.append(locate_model(start.model, models_root=config.runtime.models_root))
            _require_one_tokenizer(*directories, name=name, label=start.model.label)
        if any(term.reads_attention for stage in student.stages for term in stage.features):
            # Not before attention is read: it takes seconds to load, and a plan is there at once.
            from student_train.models.tracing import require_open_attention

            for directory in directories:
                require_open_attention(directory)


def _require_one_tokenizer(teacher_dir: Path, own: Path, *, name: str, label: str) -> None:
    if speech_sha256(teacher_dir) != speech_sha256(own):
        raise ConfigError(
            f"students.{name} learns from a teacher that reads beside it, the same tokens, and {label} has another "
            "tokenizer than the teacher: start from the teacher, or take from the cache (features with place: first "
            "or mean, and no teacher: live)"
        )
