"""Where an experiment is tracked: the configured store, or SQLite under the run root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.experiments import AnyExperiment

SQLITE = "sqlite:///"


def tracking_uri(config: AnyExperiment) -> str:
    """The configured store or the default one; absolute, because every process resolves it by itself."""
    if config.runtime.tracking_uri is not None:
        return config.runtime.tracking_uri
    return sqlite_uri(config.runtime.run_root / "mlflow.db")


def sqlite_uri(file: Path) -> str:
    """The URI of a SQLite file, whatever its path holds: in a URI `?` begins a query and `%` an escape."""
    return SQLITE + os.path.abspath(file).replace("%", "%25").replace("?", "%3F")


@contextmanager
def remove_stray_directory(uri: str) -> Iterator[None]:
    """Around MLflow's first use of a URI: it makes the parent directory of a SQLite file without decoding the URI."""
    literal = Path(uri.removeprefix(SQLITE)).parent
    if not uri.startswith(SQLITE) or "%" not in uri or literal.exists():
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # not made, or not empty and so not a stray
            literal.rmdir()
