"""The process environment of a run, set before any heavy part is imported. Imports nothing heavy itself."""

from __future__ import annotations

import os
import shutil

from configs.logs import quiet_environment


def prepare_environment(*, ray_address: str | None) -> None:
    """Turn telemetry off and keep a private Ray cluster on loopback.

    Must run before `ray` is imported, because Ray reads both of its variables once, on import. With the second one it
    takes 127.0.0.1 for its node address, so that its daemons listen there alone; without it they listen on every
    interface even for `address="local"` (seen with `ss`, ray 2.60 on Linux). A cluster of the user's keeps the user's
    own settings.
    """
    os.environ.update(quiet_environment())
    if ray_address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Ray starts its workers with nice 15, as if the engines and the gang were background work.
        os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if ray_address is None and shutil.which("nvidia-smi") is None:
        # DeepSpeed, which transformers imports where it is installed, warns on machines without a GPU otherwise.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
