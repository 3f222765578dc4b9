"""`distill serve`: the teachers of an experiment as a service, until it is stopped."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from configs import ConfigError, DistillConfig, Experiment, configure_logging
from configs.doors import DoorConfig
from configs.places import absolute_root
from configs.serving import ServeConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import key_of_teacher
from orchestration.cluster.nodes import cluster_hardware
from orchestration.cluster.planned_engine import engine_spec
from orchestration.cluster.private import cluster
from orchestration.cluster.serving import close_door, open_door
from orchestration.cluster.serving_door import Behind
from orchestration.cluster.serving_sequences import ServedTeacher
from orchestration.commands.serve_model import served_model
from orchestration.commands.serve_task import task_teachers
from orchestration.inputs.real_paths import resolve_paths, resolve_task_paths
from orchestration.inputs.screen import Screen
from orchestration.inputs.shapes import PlannedShape
from orchestration.inputs.teachers import Teacher, open_teachers
from orchestration.outputs.redirect import terminal_kept
from orchestration.pipeline.opening import require_places
from orchestration.pipeline.tasks.preparing import prepared_models
from orchestration.plan.hardware import Hardware, hardware_of
from orchestration.plan.placement import place_further_teacher
from teacher_server.http.guard import TokenStore
from teacher_server.http.sequence_desk import DeskTerms

LOGS = "door-logs"
DRAIN_S = 600.0
"""How long those who are inside are waited for at the end."""

NONE_TUNED: Mapping[str, Path] = {}

CHECK_TEXTS = (
    "Water boils at one hundred degrees at sea level, and at less than that on a mountain, where the air is thin.",
    "Write one sentence about the first ship that sailed around the world, and say what became of its captain.",
)
"""What engines are compared on before they are asked anything."""


def serve_teachers(config: Experiment, *, config_dir: Path, store: TokenStore) -> None:
    """Open the door and keep it open until somebody stops it; those who are inside are answered.

    `store` has the tokens of who may come in.

    Raises:
        ConfigError: a place, a model or the memory does not allow it.
        EngineError: the door cannot be opened.
    """
    prepared = tuned_teachers(config, config_dir=config_dir)
    config = ready_to_serve(config, config_dir=config_dir)
    require_free(config.runtime.serve)
    hardware = hardware_of(config, ask_cluster=cluster_hardware)
    require_places(config, accelerator=hardware.accelerator)
    log_dir = config.runtime.run_root.absolute() / LOGS
    log_dir.mkdir(parents=True, exist_ok=True)
    # What Ray and its daemons print goes to the log, and our own lines to whoever watches.
    with terminal_kept(log_dir / "serve.log") as terminal:
        configure_logging(log_dir / "serve.log", console=terminal)
        _serve(config, store, prepared=prepared, hardware=hardware, log_dir=log_dir, stream=terminal)


def ready_to_serve(config: Experiment, *, config_dir: Path) -> Experiment:
    """The experiment with its paths made real, unless a teacher of it is behind a door already.

    Raises:
        ConfigError: one is, the experiment has a guard, or a path leads nowhere.
    """
    for name, teacher in config.every_teacher.items():
        if teacher.elsewhere is not None:
            key, block = key_of_teacher(name), "serve" if isinstance(teacher.elsewhere, DoorConfig) else "openai"
            raise ConfigError(
                f"{key} answers behind {teacher.elsewhere.host}: a door leads to engines of its own, not to another "
                f"door: remove {key}.{block}, or give out that address"
            )
    if isinstance(config, DistillConfig) and config.content is not None and config.content.guard is not None:
        raise ConfigError(
            "content.guard is asked by runs, with engines that no door has: serve a configuration without it (a door "
            "refuses by blocklist and offensive), and let the guard judge in front of the door"
        )
    if isinstance(config, TaskDistillConfig):
        return resolve_task_paths(config, config_dir=config_dir)
    return resolve_paths(config, config_dir=config_dir)


def tuned_teachers(config: Experiment, *, config_dir: Path) -> dict[str, Path]:
    """The directories of teachers that the experiment, as it is written, tunes before it asks them.

    Raises:
        ConfigError: one of them is not tuned yet.
    """
    return prepared_models(config, config_dir=config_dir) if isinstance(config, TaskDistillConfig) else {}


def behind_door(
    config: Experiment, *, hardware: Hardware, log_dir: Path, prepared: Mapping[str, Path] = NONE_TUNED
) -> dict[str, Behind]:
    """What the door needs to know of each teacher of an experiment; `prepared` are those of `tuned_teachers`.

    Raises:
        ConfigError: one cannot be served, or its engines do not fit.
        ModelError: one cannot be found.
    """
    if isinstance(config, TaskDistillConfig):
        return task_teachers(config, prepared=prepared, texts=CHECK_TEXTS, hardware=hardware, log_dir=log_dir)
    return {**served_teachers(config, open_teachers(config), hardware=hardware, log_dir=log_dir)}


def _serve(
    config: Experiment,
    store: TokenStore,
    *,
    prepared: Mapping[str, Path],
    hardware: Hardware,
    log_dir: Path,
    stream: TextIO,
) -> None:
    _say(stream, f"Opening the door of {', '.join(config.every_teacher)} (logs in {log_dir}) ...")
    served = behind_door(config, hardware=hardware, log_dir=log_dir, prepared=prepared)
    gpus = hardware.gpus_per_node if hardware.accelerator == "gpu" else 0
    with cluster(address=config.runtime.ray_address, gpus=gpus):
        door = open_door(served, config.runtime.serve, tokens=store.path, log_dir=log_dir)
        try:
            _say(stream, f"{_address(config)} is open (Ctrl-C closes it).")
            if not store.listed():
                _say(stream, f"Nobody may come in yet: distill serve token new NAME, which writes {store.path}")
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        finally:
            _say(stream, "Closing: those who are inside are answered, and what was answered is written ...")
            close_door(door, at_most_s=DRAIN_S)
    _say(stream, "The door is closed.")


def require_free(settings: ServeConfig) -> None:
    """Refuse an address that cannot be listened at, before engines are started for it.

    Raises:
        ConfigError: naming it and the cure.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(
            f"runtime.serve: {settings.host}:{settings.port} cannot be listened at ({reason}): name another port "
            "(--port), or another host"
        ) from error


def served_teachers(
    config: DistillConfig, teachers: Mapping[str, Teacher], *, hardware: Hardware, log_dir: Path
) -> dict[str, ServedTeacher]:
    """What the door needs to know of each teacher, each of whose engines fits.

    Raises:
        ConfigError: an engine does not fit, or what `privacy` or `content` needs is not installed.
    """
    for answers in (False, True):
        Screen.of(config, answers=answers, guard=None)  # what is not installed is said before an engine starts
    served = {}
    for name, teacher in teachers.items():
        alone, files = config.of_teacher(name), teacher.files
        place_further_teacher(alone, teacher=PlannedShape(files.label, files.shape, assumed=False), hardware=hardware)
        engine, settings = config.runtime.teacher_engine, config.runtime.serve
        spec = engine_spec(
            files,
            teacher.by_weights,
            settings=engine,
            k=alone.teacher.top_k,
            accelerator=hardware.accelerator,
            log_dir=log_dir,
        )
        data = config.data
        model = served_model(
            files,
            teacher.identity,
            spec=spec,
            cache_root=absolute_root(config.runtime.cache_root),
            references=config.runtime.run_root.absolute() / "references",
            terms=DeskTerms(
                vocab=files.vocab,
                most_k=min(alone.teacher.top_k, files.vocab),
                licence=alone.teacher.licence,
                provenance=teacher.provenance(alone),
                encoding=alone.teacher.encoding,
                most_waiting_tokens=settings.most_waiting_tokens,
                commit_every_s=settings.commit_every_s,
            ),
            texts=CHECK_TEXTS,
            template_variables=dict(data.template_kwargs or {})
            | ({} if data.chat_template is None else {"chat_template": data.chat_template}),
        )
        served[name] = replace(model, privacy=config.privacy, content=config.content)
    return served


def _address(config: Experiment) -> str:
    settings = config.runtime.serve
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.certificate is None else 'https'}://{host}:{settings.port}"


def _say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
