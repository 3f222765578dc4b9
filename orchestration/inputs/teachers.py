"""The teacher of an experiment: its files, its identity, and its part of the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cache import TeacherCache, TeacherIdentity
from cache.fingerprint import fingerprint_model
from configs import DistillConfig
from configs.experiments import AnyExperiment
from configs.places import FINGERPRINTS
from configs.schema import DataConfig
from orchestration.environment import VLLM, installed_version
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.preflight import require_fitting_lengths, require_positions, require_servable
from orchestration.inputs.vocabularies import require_one_vocabulary


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher's files and who it is."""

    files: ModelFiles
    identity: TeacherIdentity

    def provenance(self, config: DistillConfig) -> dict[str, str]:
        """What every manifest records and no key depends on."""
        data = config.data
        first = next(iter(data.splits.values()))
        return {
            "model": self.files.label,
            "tokenizer": type(self.files.tokenizer).__name__,
            **_template(data),
            "dataset": str(first.hub or first.path),
            "vllm": installed_version(*VLLM),
            "stillroom": installed_version("stillroom"),
        }


def open_teachers(config: DistillConfig, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Teacher]:
    """Every teacher of an experiment by its name, the first one first.

    Raises:
        ModelError: one cannot be found, loaded or fingerprinted.
        ConfigError: the experiment asks for more than one can do, or they have different vocabularies.
    """
    names = config.every_teacher
    # Before any weights are hashed, which takes minutes where they are large.
    files = {name: materialise(each.model, models_root=config.runtime.models_root) for name, each in names.items()}
    require_one_vocabulary(files)
    return {name: open_teacher(config.of_teacher(name), progress=progress) for name in names}


def open_teacher(config: DistillConfig, *, progress: Callable[[int, int], None] | None = None) -> Teacher:
    """Make the teacher's directory if need be, and compute its identity; `progress` is told (bytes hashed, in all).

    Raises:
        ModelError: it cannot be found, loaded or fingerprinted.
        ConfigError: the experiment asks for more than it can do.
    """
    models_root = config.runtime.models_root
    files = materialise(config.teacher.model, models_root=models_root)
    # The rows of its matrix beyond the tokenizer's length are padding: no k may count on them.
    require_fitting_lengths(config, teacher=files.shape.model_copy(update={"vocab": files.vocab}))
    require_positions(config, model="the teacher", shape=files.shape, engine="teacher_engine")
    teacher = config.teacher
    require_servable(files, dtype=teacher.dtype)
    return Teacher(
        files,
        identity_of(files, config=config, dtype=teacher.dtype, quantization=teacher.quantization, progress=progress),
    )


def identity_of(
    files: ModelFiles,
    *,
    config: AnyExperiment,
    dtype: str,
    quantization: str | None = None,
    remember: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherIdentity:
    """Who a model is when it is served in this dtype: the teacher's own, or that of a student's stage.

    Without `remember` nothing is kept of what its files hashed to: for weights that live for one rollout.
    """
    memo = config.runtime.models_root / FINGERPRINTS
    prints = fingerprint_model(files.directory, memo=memo if remember else None, progress=progress)
    return TeacherIdentity(
        weights_sha256=prints.weights_sha256,
        config_sha256=prints.config_sha256,
        dtype=dtype,
        quantization=quantization,
    )


def open_cache(config: DistillConfig, teacher: Teacher) -> TeacherCache:
    """The teacher's part of the cache."""
    return TeacherCache.open(config.runtime.cache_root, teacher.identity, provenance=teacher.provenance(config))


def _template(data: DataConfig) -> dict[str, str]:
    """What prompts were rendered with, as far as the configuration says it."""
    said: dict[str, str] = {"template": data.template}
    if data.template == "chat":
        said["template_date"] = data.date_of_templates.isoformat()
    if data.chat_template is not None:
        said["chat_template"] = data.chat_template
    if data.template_kwargs:
        said["template_kwargs"] = json.dumps(data.template_kwargs, sort_keys=True)
    return said
