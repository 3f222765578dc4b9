"""A Ray cluster for one run: a private one on this machine, or one that is already there.

The private cluster listens on loopback only, asks for a token, sends no usage statistics, and keeps everything it
writes in one temporary directory that goes when it stops.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from configs import ConfigError, EngineError

OBJECT_STORE_BYTES = 256 * 2**20
"""Records go through the shared file system and not through Ray, so the object store stays small."""


@contextmanager
def cluster(*, address: str | None, gpus: int) -> Iterator[None]:
    """Attach to `address`, or start a private local cluster and stop it afterwards.

    Raises:
        ConfigError: no cluster answers at `address`.
        EngineError: the private cluster did not start.
    """
    with _attached(address) if address else _private(gpus):
        yield


@contextmanager
def _attached(address: str) -> Iterator[None]:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address}: start one with `ray start --head`, or leave --ray-address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _private(gpus: int) -> Iterator[None]:
    # Unix sockets allow 107 characters, so the directory must have a short name.
    directory = Path(tempfile.mkdtemp(prefix="stillroom-"))
    before = _set_token(directory)
    try:
        ray.init(
            address="local",
            # Logical CPUs only order the stages; Ray's own train controller and queue actors take none.
            num_cpus=max(os.cpu_count() or 1, 2),
            num_gpus=gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(directory / "ray"),
        )
        _require_loopback()
        yield
    except (ConnectionError, TimeoutError) as error:
        raise EngineError(f"the local Ray cluster did not start: {error}") from error
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require_loopback() -> None:
    """Refuse to run with daemons that other machines can reach (see `environment.prepare_environment`)."""
    node = ray.util.get_node_ip_address()
    if node != "127.0.0.1":
        raise EngineError(f"the private Ray cluster took {node} for its address instead of 127.0.0.1; "
                          "call environment.prepare_environment before ray is imported")


def _set_token(directory: Path) -> Mapping[str, str | None]:
    """Write a fresh token that only this user can read, and return the variables as they were."""
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    return before
