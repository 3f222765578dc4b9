"""The MLflow UI on loopback, with everything off that comparing runs does not need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TextIO

from configs import ConfigError, DistillConfig
from configs.logs import quiet_environment

HOST = "127.0.0.1"


def serve_ui(config: DistillConfig, *, port: int, stream: TextIO) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is no store yet, or the port is taken.
    """
    store = config.runtime.run_root / "mlflow.db"
    uri = config.runtime.tracking_uri or f"sqlite:///{os.path.abspath(store)}"
    if config.runtime.tracking_uri is None and not store.exists():
        raise ConfigError(f"{store} does not exist: run an experiment first")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"port {port} is in use: name another one with --port") from error
    environment = (
        os.environ
        | quiet_environment()
        | {
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    stream.write(f"MLflow at http://{HOST}:{port} (Ctrl-C ends it)\n")
    stream.flush()
    server = subprocess.Popen(command, env=environment)
    try:
        server.wait()
    except KeyboardInterrupt:
        server.wait(timeout=20)
