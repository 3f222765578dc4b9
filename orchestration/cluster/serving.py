"""Opening and closing the door under Ray Serve: engines that start, end and are replaced, and one door before them.

Each engine is a replica of a deployment of its teacher (`serving_sequences`, `serving_signals`); Serve starts another
one where it dies, and as many as the load takes. The door (`serving_door`) is one replica.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application as Application
from ray.serve._private import api
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from configs import EngineError
from configs.serving import ServeConfig
from configs.visible_text import first_line
from orchestration.cluster.serving_door import Behind, Door, ServedWords
from orchestration.cluster.serving_front import front_environment
from orchestration.cluster.serving_sequences import EngineReplica, ServedTeacher
from orchestration.cluster.serving_signals import TEXTS_AT_ONCE, ServedHead, SignalReplica
from teacher_server.environment import engine_environment

APPLICATION = "stillroom"
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 60.0
"""An engine's step may hold its process for long."""

LISTENING_S = 180.0
"""How long whoever listens may take to come up; on busy cores one process takes a minute to start."""

_QUIET = {"enable_access_log": False}
"""Serve's own access log has paths and queries."""

logger = logging.getLogger(__name__)


def open_door(
    teachers: Mapping[str, Behind], settings: ServeConfig, *, tokens: Path, log_dir: Path
) -> DeploymentHandle:
    """Start engines and door on the cluster that is attached; returns when they can be asked.

    Raises:
        EngineError: an engine does not come up, does not say what its weights say, or the port is taken.
    """
    # What Serve says of its own work is in its logs; people are told what they can act upon.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        with _patience():
            serve.start(
                http_options=_http(settings),
                logging_config=_QUIET,
                # Whoever listens is started by Serve's controller and inherits its environment.
                controller_options={"runtime_env": {"env_vars": front_environment(settings)}},
            )
        return serve.run(
            door_application(teachers, settings, tokens=tokens, log_dir=log_dir), name=APPLICATION, route_prefix="/"
        )
    except (RuntimeError, RayError, TimeoutError) as error:
        raise EngineError(f"the door cannot be opened ({_why(error)}); its logs are in {log_dir}") from error


@contextmanager
def _patience() -> Iterator[None]:
    """Within, `serve.start` waits longer for whoever listens: it has no setting for this.

    A release that waits in another way waits as long as it always does.
    """
    before = getattr(api, "HTTP_PROXY_TIMEOUT", None)
    api.HTTP_PROXY_TIMEOUT = LISTENING_S
    try:
        yield
    finally:
        api.HTTP_PROXY_TIMEOUT = before


def door_application(
    teachers: Mapping[str, Behind], settings: ServeConfig, *, tokens: Path, log_dir: Path
) -> Application:
    """Engines and the door before them, to be run by whoever runs Serve; where it listens is Serve's to say."""
    door = serve.deployment(name="door", num_replicas=1, max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0})(
        Door
    )
    engines = {name: _engines(name, teacher, settings) for name, teacher in teachers.items()}
    return door.bind(dict(teachers), settings, tokens, log_dir, engines)


def close_door(door: DeploymentHandle, *, at_most_s: float) -> None:
    """Answer who is inside and write what was answered, then end door and engines."""
    try:
        door.drain.remote().result(timeout_s=at_most_s)
    except (RayError, TimeoutError) as error:
        logger.warning("the door was closed before all were answered: %s", first_line(error))
    finally:
        serve.shutdown()


def _engines(name: str, teacher: Behind, settings: ServeConfig) -> Application:
    """Engines of a teacher; of one with a head each is on one GPU at most."""
    spec, has_head = teacher.spec, isinstance(teacher, ServedHead)
    many = TEXTS_AT_ONCE if has_head else 2 * spec.settings.max_sequences
    least = settings.least_engines or spec.settings.count
    most = max(settings.most_engines or least, least)
    gpus = spec.settings.ranks if spec.accelerator == "gpu" else 0
    scale: dict[str, Any] = {"num_replicas": least}
    if most > least:
        target = many // 2
        scale = {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}}
    deployment = serve.deployment(
        name=f"engine-{name}",
        logging_config=_QUIET,
        # More wait in the door, where they are counted.
        max_ongoing_requests=many,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        ray_actor_options={
            "num_cpus": gpus or spec.settings.cpus * spec.settings.ranks,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": engine_environment(spec.settings, spec.accelerator)},
        },
        **scale,
    )(SignalReplica if has_head else EngineReplica)
    # Of what is said in words an engine need not know.
    bound = teacher.model if isinstance(teacher, ServedWords) else teacher
    return deployment.bind(_named(bound, f"engine-{name}"))


def _named(teacher: ServedTeacher | ServedHead, name: str) -> ServedTeacher | ServedHead:
    if isinstance(teacher, ServedHead):
        return replace(teacher, spec=replace(teacher.spec, name=name))
    return replace(teacher, spec=replace(teacher.spec, name=name))


def _http(settings: ServeConfig) -> HTTPOptions:
    tls = (
        {}
        if settings.certificate is None or settings.private_key is None
        else {"ssl_certfile": str(settings.certificate), "ssl_keyfile": str(settings.private_key)}
    )
    # The door has a time limit of its own, and says so in its own words.
    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        request_timeout_s=None,
        keep_alive_timeout_s=settings.idle_s,
        **tls,
    )


def _why(error: BaseException) -> str:
    """The line that says it, out of Serve's pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or [type(error).__name__])[-1]
