"""The MLflow UI on loopback, with everything off that comparing runs does not need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TextIO

from configs import ConfigError, DistillConfig, DistillError
from configs.logs import quiet_environment

HOST = "127.0.0.1"
GRACE_S = 20.0


def serve_ui(config: DistillConfig, *, port: int, stream: TextIO) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is no store yet, or the port cannot be had.
        DistillError: the server ended by itself.
    """
    store = config.runtime.run_root / "mlflow.db"
    uri = config.runtime.tracking_uri or f"sqlite:///{os.path.abspath(store)}"
    if config.runtime.tracking_uri is None and not store.exists():
        raise ConfigError(f"{store} does not exist: run an experiment first")
    _require_port(port)
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
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        _end(server)
    raise DistillError(f"the MLflow UI ended by itself with exit code {code}; its last lines are above")


def _require_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"port {port} cannot be used ({reason}): name another one with --port") from error
        except OverflowError as error:
            raise ConfigError(f"--port {port} is no port: name one from 1 to 65535") from error


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ctrl-C in a terminal reaches the server too; any other end of this process must not leave it running."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
