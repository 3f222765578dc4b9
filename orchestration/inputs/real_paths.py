"""The files that a configuration names, where they really lie. One that is missing is told by its key."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TypeVar

from configs import ConfigError, load_task_file, resolve_data_path
from configs.audit import AskedAudits
from configs.doors import DoorConfig
from configs.models import Block, ModelSource
from configs.schema import DistillConfig, PlainConfig, TeacherConfig
from configs.screening import ContentConfig, GuardConfig
from configs.stages import StageConfig
from configs.task_data import ByModel
from configs.task_experiment import TaskDistillConfig
from configs.task_starts import TransformerStart
from configs.task_teacher import TaskTeacherConfig
from configs.teachers import FIRST, key_of_teacher
from orchestration.inputs.rows import FORMATS

Audits = TypeVar("Audits", bound=AskedAudits)


def resolve_paths(config: DistillConfig, *, config_dir: Path) -> DistillConfig:
    """The configuration with the paths of data and models made real; the digest is taken before this.

    Raises:
        ConfigError: a file is missing or empty, or the file of a task is none.
    """
    data = config.data
    changed: dict[str, Block] = {}
    for split, source in data.splits.items():
        if source.path is not None:
            key = f"data.{split}.path"
            path = _real_file(source.path, key=key, config_dir=config_dir, kinds=FORMATS, holds="prompts")
            changed[split] = source.model_copy(update={"path": path})
    if data.plain is not None:
        changed["plain"] = _real_plain(data.plain, config_dir=config_dir)
    teacher = _real_teacher(config.teacher, key="teacher", config_dir=config_dir)
    others = {
        name: _real_teacher(other, key=f"teachers.{name}", config_dir=config_dir)
        for name, other in config.teachers.items()
    }
    students = dict(config.students)
    for name, written in students.items():
        stages = [
            _with_real_paths(stage, key=f"students.{name}.stages.{number}", config_dir=config_dir)
            for number, stage in enumerate(written.stages)
        ]
        student = students[name] = written.model_copy(update={"stages": tuple(stages)})
        if student.init.model is not None:
            model = _real_model(student.init.model, key=f"students.{name}.init.model", config_dir=config_dir)
            init = student.init.model_copy(update={"model": model})
            students[name] = student.model_copy(update={"init": init})
    evaluation = config.evaluation
    if evaluation.tasks is not None:
        tasks = tuple(
            _real_task(path, key=f"evaluation.tasks.{number}", config_dir=config_dir)
            for number, path in enumerate(evaluation.tasks)
        )
        evaluation = evaluation.model_copy(update={"tasks": tasks})
    return config.model_copy(
        update={
            "data": data.model_copy(update=changed),
            "content": _real_content(config.content, config_dir=config_dir),
            "audit": _real_audit(config.audit, config_dir=config_dir),
            "teacher": teacher,
            "teachers": others,
            "students": students,
            "evaluation": evaluation,
        }
    )


def resolve_task_paths(config: TaskDistillConfig, *, config_dir: Path) -> TaskDistillConfig:
    """The same of an experiment that distils a task.

    Raises:
        ConfigError: a file is missing or empty, or that of the task is none.
    """
    data, teacher = config.data, config.teacher
    task = _real_task(config.task, key="task", config_dir=config_dir)
    transfer = list(data.transfer)
    for at, source in enumerate(transfer):
        if source.path is not None:
            key = f"data.transfer.{at}.path"
            path = _real_file(source.path, key=key, config_dir=config_dir, kinds=FORMATS, holds="rows")
            transfer[at] = source.model_copy(update={"path": path})
    plain = None if data.plain is None else _real_plain(data.plain, config_dir=config_dir)
    augment = dict(data.augment)
    for name, made in augment.items():
        if isinstance(made, ByModel):
            model = _real_model(made.model, key=f"data.augment.{name}.model", config_dir=config_dir)
            augment[name] = made.model_copy(update={"model": model})
    students = dict(config.students)
    for name, student in students.items():
        start = student.start
        if isinstance(start, TransformerStart) and start.model is not None:
            model = _real_model(start.model, key=f"students.{name}.start.model", config_dir=config_dir)
            students[name] = student.model_copy(update={"start": start.model_copy(update={"model": model})})
    others = {
        name: _real_task_teacher(other, key=key_of_teacher(name), config_dir=config_dir)
        for name, other in config.teachers.items()
    }
    return config.model_copy(
        update={
            "teachers": others,
            "task": task,
            "content": _real_content(config.content, config_dir=config_dir),
            "audit": _real_audit(config.audit, config_dir=config_dir),
            "data": data.model_copy(update={"transfer": tuple(transfer), "augment": augment, "plain": plain}),
            "teacher": _real_task_teacher(teacher, key=FIRST, config_dir=config_dir),
            "students": students,
        }
    )


def _real_content(content: ContentConfig | None, *, config_dir: Path) -> ContentConfig | None:
    """The block with the paths of its list and of its guard made real."""
    if content is None:
        return None
    changed: dict[str, Path | GuardConfig] = {}
    if content.blocklist is not None:
        changed["blocklist"] = _real(content.blocklist, key="content.blocklist", config_dir=config_dir)
    if content.guard is not None:
        model = _real_model(content.guard.model, key="content.guard.model", config_dir=config_dir)
        changed["guard"] = content.guard.model_copy(update={"model": model})
    return content.model_copy(update=changed)


def _real_audit(audit: Audits | None, *, config_dir: Path) -> Audits | None:
    """The block with the paths of its pairs made real."""
    if audit is None or not audit.pairs:
        return audit
    pairs = (_real(path, key=f"audit.pairs.{at}", config_dir=config_dir) for at, path in enumerate(audit.pairs))
    return audit.model_copy(update={"pairs": tuple(pairs)})


def _real_task_teacher(teacher: TaskTeacherConfig, *, key: str, config_dir: Path) -> TaskTeacherConfig:
    """The same of a teacher of a task as `_real_teacher`."""
    model = _real_model(teacher.model, key=f"{key}.model", config_dir=config_dir)
    return teacher.model_copy(
        update={"model": model, "serve": _real_door(teacher.serve, key=key, config_dir=config_dir)}
    )


def _real_door(door: DoorConfig | None, *, key: str, config_dir: Path) -> DoorConfig | None:
    """A door with the path of its certificates made real."""
    if door is None or door.ca_file is None:
        return door
    return door.model_copy(update={"ca_file": _real(door.ca_file, key=f"{key}.serve.ca_file", config_dir=config_dir)})


def _real_plain(plain: PlainConfig, *, config_dir: Path) -> PlainConfig:
    """Plain text with the paths of its files made real."""
    found = {}
    for split in ("train", "dev"):
        source = getattr(plain, split)
        if source.path is not None:
            key = f"data.plain.{split}.path"
            path = _real_file(source.path, key=key, config_dir=config_dir, kinds=FORMATS, holds="text")
            found[split] = source.model_copy(update={"path": path})
    return plain.model_copy(update=found)


def _real_teacher(teacher: TeacherConfig, *, key: str, config_dir: Path) -> TeacherConfig:
    """A teacher with the paths of its model, and of its door's certificates, made real."""
    changed: dict[str, Block | None] = {
        "model": _real_model(teacher.model, key=f"{key}.model", config_dir=config_dir),
        "serve": _real_door(teacher.serve, key=key, config_dir=config_dir),
    }
    if teacher.openai is not None and teacher.openai.ca_file is not None:
        path = _real(teacher.openai.ca_file, key=f"{key}.openai.ca_file", config_dir=config_dir)
        changed["openai"] = teacher.openai.model_copy(update={"ca_file": path})
    return teacher.model_copy(update=changed)


def _real_model(source: ModelSource, *, key: str, config_dir: Path) -> ModelSource:
    """The source with the path of a local model made real; any other one is what it was."""
    if source.path is None:
        return source
    return source.model_copy(update={"path": _real(source.path, key=f"{key}.path", config_dir=config_dir)})


def _with_real_paths(stage: StageConfig, *, key: str, config_dir: Path) -> StageConfig:
    changed: dict[str, Block] = {}
    if stage.pretrain is not None:
        written = stage.pretrain.path
        path = _real_file(written, key=f"{key}.pretrain.path", config_dir=config_dir, kinds=FORMATS, holds="text")
        changed["pretrain"] = stage.pretrain.model_copy(update={"path": path})
    if stage.rollout is not None and stage.rollout.replay_from is not None:
        path = _real(stage.rollout.replay_from, key=f"{key}.rollout.replay_from", config_dir=config_dir)
        changed["rollout"] = stage.rollout.model_copy(update={"replay_from": path})
    return stage.model_copy(update=changed)


def _real_task(written: Path, *, key: str, config_dir: Path) -> Path:
    """The file of a task, which is one; its rows are read later."""
    path = _real(written, key=key, config_dir=config_dir)
    try:
        load_task_file(path)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    return path


def _real_file(written: Path, *, key: str, config_dir: Path, kinds: str, holds: str) -> Path:
    path = _real(written, key=key, config_dir=config_dir)
    try:
        # Before it is opened: a named pipe would be waited for.
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{key}={written} cannot be read ({error.strerror}): check its permissions") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{key}={written} is not a file: name a {kinds} file")
    if found.st_size == 0:
        raise ConfigError(f"{key}={written} is empty: put {holds} in it or name another file")
    return path


def _real(path: Path, *, key: str, config_dir: Path) -> Path:
    try:
        return resolve_data_path(path, config_dir=config_dir)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ConfigError(f"{key}={path} cannot be read ({error.strerror}): correct it or its permissions") from error
