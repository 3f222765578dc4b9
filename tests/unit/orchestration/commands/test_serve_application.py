"""The door as an application of somebody else's Serve: what it is bound to, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import ConfigError
from orchestration.commands.serve_application import DoorArguments, application
from orchestration.commands.serve_tokens import TOKENS

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"


def arguments(root: Path, *more: str) -> DoorArguments:
    roots = [f"runtime.{name}={root / name}" for name in ("cache_root", "models_root", "run_root")]
    return DoorArguments.model_validate({"config": str(TINY), "set": [*roots, *more]})


def test_engines_of_every_teacher_stand_behind_the_door(tmp_path: Path) -> None:
    bound = application(arguments(tmp_path, "runtime.accelerator=cpu", "runtime.teacher_engine.count=2"))
    door = bound._bound_deployment
    teachers, settings, tokens, logs, engines = door.init_args
    assert door.name == "door" and door.ray_actor_options["num_cpus"] == 0
    assert list(teachers) == list(engines) == ["teacher"]
    assert tokens == tmp_path / "run_root" / TOKENS and logs.is_dir()
    assert settings.hosts == ()
    engine = engines["teacher"]._bound_deployment
    assert (engine.name, engine.num_replicas) == ("engine-teacher", 2)


def test_what_serves_is_named_and_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.accelerator: name cpu or gpu"):
        application(arguments(tmp_path, "runtime.accelerator=auto"))


def test_an_argument_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="nosuch"):
        DoorArguments.model_validate({"config": str(TINY), "nosuch": 1})
