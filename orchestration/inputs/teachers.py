"""The teacher of an experiment: its files, its identity, and its part of the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cache import TeacherCache, TeacherIdentity
from cache.fingerprint import config_sha256, fingerprint_model
from cache.identity import Identity
from configs import DistillConfig
from configs.experiments import AnyExperiment
from configs.places import FINGERPRINTS
from configs.schema import DataConfig
from configs.teachers import FIRST, key_of_teacher
from orchestration.environment import VLLM, installed_version
from orchestration.inputs.doors import (
    UNKNOWN,
    Door,
    TeacherDoor,
    open_doors,
    require_same,
    require_weights,
    too_much,
    weights_wanted,
)
from orchestration.inputs.models import ModelFiles, materialise
from orchestration.inputs.preflight import require_fitting_lengths, require_positions, require_servable
from orchestration.inputs.remote_teachers import RemoteDoor
from orchestration.inputs.vocabularies import require_one_vocabulary


@dataclass(frozen=True, slots=True)
class Teacher:
    """The teacher's files and who it is; `door` is where it answers, if no engine of this run does.

    The files of one whose weights nobody can hash are those of whose tokenizer it is read with; it is `declared`, in
    words, otherwise.
    """

    files: ModelFiles
    identity: Identity
    door: Door | None = None
    declared: str | None = None

    @property
    def known_as(self) -> str:
        """What it is for people, wherever it answers."""
        return self.declared or self.files.label

    @property
    def label(self) -> str:
        """What it is for people, and where it answers."""
        return self.known_as if self.door is None else f"{self.known_as} ({self.door.label})"

    @property
    def by_weights(self) -> TeacherIdentity:
        """Who it is by its weights, which an engine of this run serves."""
        assert isinstance(self.identity, TeacherIdentity)
        return self.identity

    def provenance(self, config: DistillConfig) -> dict[str, str]:
        """What every manifest records and no key depends on."""
        data = config.data
        first = next(iter(data.splits.values()))
        return {
            "model": self.files.label,
            "tokenizer": type(self.files.tokenizer).__name__,
            **_template(data),
            "dataset": str(first.hub or first.path),
            **({"vllm": installed_version(*VLLM)} if self.door is None else self.door.provenance()),
            "stillroom": installed_version("stillroom"),
        }


def open_teachers(
    config: DistillConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
    doors: Mapping[str, TeacherDoor] | None = None,
) -> dict[str, Teacher]:
    """Every teacher of an experiment by its name, the first one first.

    `doors` are those that were asked before; of a served teacher whose door is not among them only that is known which
    its files say. Without them all doors are asked.

    Raises:
        ModelError: one cannot be found, loaded or fingerprinted.
        ConfigError: the experiment asks for more than one can do, they have different vocabularies, or a door has
            another teacher than the configuration.
        DoorError: a door does not answer.
    """
    # Before any weights are hashed, which takes minutes where they are large.
    doors = open_doors(config) if doors is None else doors
    files = {name: _files_of(config, name) for name in config.every_teacher}
    require_one_vocabulary(files)
    return {
        name: _opened(config, files[name], name=name, door=doors.get(name), progress=progress)
        for name in config.every_teacher
    }


def open_teacher(config: DistillConfig, *, progress: Callable[[int, int], None] | None = None) -> Teacher:
    """Make the directory of the first teacher if need be, and compute its identity; see `open_teachers`.

    `progress` is told (bytes hashed, in all).

    Raises:
        ModelError: it cannot be found, loaded or fingerprinted.
        ConfigError: the experiment asks for more than it can do, or its door has another one.
        DoorError: its door does not answer.
    """
    door = open_doors(config.of_teacher(FIRST)).get(FIRST)
    return _opened(config, _files_of(config, FIRST), name=FIRST, door=door, progress=progress)


def _files_of(config: DistillConfig, name: str) -> ModelFiles:
    """The files of the teacher of this name; of one that answers behind a door without weights that nobody needs."""
    teacher, models_root = config.every_teacher[name], config.runtime.models_root
    if teacher.elsewhere is None:
        return materialise(teacher.model, models_root=models_root)
    wanted = teacher.serve is not None and name == FIRST and weights_wanted(config) is not None
    fetched = wanted and teacher.model.hub is not None
    files = materialise(teacher.model, models_root=models_root, weights=fetched)
    if name == FIRST:
        require_weights(config, files)
    return files


def _opened(
    config: DistillConfig,
    files: ModelFiles,
    *,
    name: str,
    door: TeacherDoor | None,
    progress: Callable[[int, int], None] | None,
) -> Teacher:
    """The teacher of this name."""
    alone = config.of_teacher(name)
    teacher, key = alone.teacher, key_of_teacher(name)
    # The rows of its matrix beyond the tokenizer's length are padding: no k may count on them.
    require_fitting_lengths(alone, teacher=files.shape.model_copy(update={"vocab": files.vocab}), key=key)
    if teacher.openai is not None:
        remote = RemoteDoor(config, name, files)
        return Teacher(files, remote.identity, remote, declared=teacher.label)
    if teacher.serve is None:
        require_positions(alone, model="the teacher", shape=files.shape, engine="teacher_engine")
    require_servable(files, dtype=teacher.dtype, key=key)
    if files.has_weights or teacher.serve is None:
        here = identity_of(
            files, config=config, dtype=teacher.dtype, quantization=teacher.quantization, progress=progress
        )
    else:
        here = identity_without_weights(files, dtype=teacher.dtype, quantization=teacher.quantization)
    if door is None:
        return Teacher(files, here)
    terms = too_much(key, teacher, door=door, longest=config.longest_asked)
    return Teacher(files, require_same(key, door, files, here=here, terms=terms), door)


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


def identity_without_weights(files: ModelFiles, *, dtype: str, quantization: str | None = None) -> TeacherIdentity:
    """What is known of who a model is whose weights are not here."""
    return TeacherIdentity(UNKNOWN, config_sha256(files.directory), None, "", dtype, quantization)


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
