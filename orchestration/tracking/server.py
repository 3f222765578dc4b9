"""The process that serves MLflow behind `orchestration.tracking.guard`; `orchestration.commands.ui` starts it.

Its settings come over standard input, because arguments and, to the same user, environments of processes can be read.
Artifacts are served from one directory alone, and from no place that a link leads to.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.regular_files import parse_json


@dataclass(frozen=True, slots=True)
class UiSettings:
    """What the server needs to know: the store, where artifacts lie, the token, and the socket that it inherits."""

    uri: str
    artifacts: str
    token: str
    port: int
    socket: int

    def fields(self) -> dict[str, object]:
        """As JSON can hold them."""
        return asdict(self)


def main() -> None:
    """Serve until the process is ended."""
    raw = parse_json(sys.stdin.buffer.read(), origin="standard input")
    assert isinstance(raw, dict)
    serve(UiSettings(**raw))


def serve(settings: UiSettings) -> None:
    """Serve MLflow's own application on the inherited socket."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = settings.uri
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = Path(settings.artifacts).as_uri()
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"
    # MLflow takes part of its settings from the environment when it is imported.
    import uvicorn
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    from orchestration.tracking.guard import Guard
    from orchestration.tracking.store import remove_stray_directory

    confine_artifacts(Path(settings.artifacts))
    with remove_stray_directory(settings.uri):
        initialize_backend_stores(settings.uri, default_artifact_root=Path(settings.artifacts).as_uri())
    # No log of requests: the first one of a browser holds the token.
    config = uvicorn.Config(
        Guard(app, token=settings.token, port=settings.port),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    with socket.socket(fileno=settings.socket) as listening:
        uvicorn.Server(config).run(sockets=[listening])


def confine_artifacts(root: Path) -> None:
    """From now on MLflow opens no artifacts of this process but those below `root`, where nothing is a link."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    allowed = root.resolve()

    class Confined(LocalArtifactRepository):  # type: ignore[misc]  # MLflow has no types
        def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
            super().__init__(artifact_uri, tracking_uri, registry_uri)
            reason = why_refused(Path(self._artifact_dir), root=root)
            if reason is not None:
                raise MlflowException.invalid_parameter_value(f"{artifact_uri}: {reason}")

    def elsewhere(artifact_uri: str, *_: object, **__: object) -> LocalArtifactRepository:
        raise MlflowException.invalid_parameter_value(f"{artifact_uri}: artifacts are shown from {allowed} alone")

    registry = _artifact_repository_registry._registry
    for scheme in registry:
        # These two name a run or a model, whose own place is looked up here again.
        if scheme not in ("runs", "models"):
            registry[scheme] = Confined if scheme in ("", "file") else elsewhere


def why_refused(directory: Path, *, root: Path) -> str | None:
    """Why a directory of artifacts is not shown; None if it is.

    Links are followed on the way to the root (a run root that was moved and linked to), and none below it.
    """
    plain, named, allowed = Path(os.path.abspath(directory)), Path(os.path.abspath(root)), root.resolve()
    within = next((plain.relative_to(above) for above in (named, allowed) if above in plain.parents), None)
    if within is None or plain.resolve() != allowed / within:
        return f"artifacts are shown from {allowed} alone, and without following links"
    for folder, folders, files in os.walk(plain):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                return f"{path.name} is a link or not a regular file: remove it"
    return None
