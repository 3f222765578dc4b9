"""The door for a Serve that somebody else runs (KubeRay's RayService, `serve deploy`): the application by its name.

    import_path: orchestration.commands.serve_application:application
    args: {config: /experiment/experiment.yaml, set: [runtime.run_root=/data/runs]}

Where it listens, and by which certificate, Serve's own configuration says; `runtime.serve.hosts` has the names that it
is asked by. It is drained as Serve ends it: what was answered and not yet written (`commit_every_s`) is paid again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs import ConfigError, load_experiment
from configs.experiments import AnyExperiment
from orchestration.cluster.serving import Application, door_application
from orchestration.commands.serve import LOGS, behind_door, ready_to_serve, tuned_teachers
from orchestration.commands.serve_tokens import token_store
from orchestration.pipeline.opening import require_places
from orchestration.plan.hardware import Hardware, hardware_of


class DoorArguments(BaseModel):
    """The experiment whose teachers are served, and what is changed of it (`key=value`)."""

    model_config = ConfigDict(extra="forbid")

    config: Path
    overrides: Annotated[list[str], Field(alias="set")] = []


def application(said: Mapping[str, Any]) -> Application:
    """Engines and the door before them; `said` are the fields of `DoorArguments`.

    Raises:
        ConfigError: the arguments, the configuration, a place, a model or the memory does not allow it.
    """
    try:
        arguments = DoorArguments.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"args: {first['msg']} at {first['loc']}") from error
    # This runs within the cluster, on a machine that may have none of its GPUs: the configuration is believed.
    config = load_experiment(arguments.config, overrides=[*arguments.overrides, "runtime.ray_address=auto"])
    prepared = tuned_teachers(config, config_dir=arguments.config.parent)
    config = ready_to_serve(config, config_dir=arguments.config.parent)
    hardware = hardware_of(config, ask_cluster=_not_named)
    require_places(config, accelerator=hardware.accelerator)
    log_dir = config.runtime.run_root.absolute() / LOGS
    log_dir.mkdir(parents=True, exist_ok=True)
    teachers = behind_door(config, hardware=hardware, log_dir=log_dir, prepared=prepared)
    return door_application(teachers, config.runtime.serve, tokens=token_store(config).path, log_dir=log_dir)


def _not_named(config: AnyExperiment) -> Hardware:
    raise ConfigError("runtime.accelerator: name cpu or gpu, since this machine may not be one of those that serve")
