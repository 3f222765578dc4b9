"""The door as an application of somebody else's Serve: what it is bound to, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from configs import ConfigError
from orchestration.commands.serve_application import application
from orchestration.commands.serve_tokens import TOKENS

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"


def arguments(root: Path, *more: str) -> dict[str, Any]:
    roots = [f"runtime.{name}={root / name}" for name in ("cache_root", "models_root", "run_root")]
    return {"config": str(TINY), "set": [*roots, *more]}


def test_engines_of_every_teacher_stand_behind_the_door(tmp_path: Path) -> None:
    said = arguments(tmp_path, "runtime.accelerator=cpu", "runtime.teacher_engine.count=2")
    # As Serve itself calls it.
    bound = call_user_app_builder_with_args_if_necessary(application, said)
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
    with pytest.raises(ConfigError, match=r"args: Extra inputs are not permitted at \('nosuch',\)"):
        application({"config": str(TINY), "nosuch": 1})
