"""The process environment of a run, set before any heavy part is imported. Imports nothing heavy itself."""

from __future__ import annotations

import os

from configs.logs import quiet_environment


def prepare_environment(*, ray_address: str | None) -> None:
    """Turn telemetry off and keep a private Ray cluster on loopback.

    Must run before `ray` is imported. Ray reads the last variable once, on import, and then takes 127.0.0.1 for its
    node address, so that its daemons listen there alone; without it they listen on every interface even for
    `address="local"` (seen with `ss`, ray 2.60 on Linux). A cluster of several machines needs the opposite.
    """
    os.environ.update(quiet_environment())
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1" if ray_address else "0"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
