"""The MLflow UI on loopback behind a login, with everything off that comparing runs does not need.

The port is bound here and inherited by the server (`orchestration.tracking.server`), so nobody can take it in between
and be shown the token.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TextIO

from configs import ConfigError, DistillError
from configs.experiments import AnyExperiment
from configs.logs import quiet_environment
from configs.places import STAGING
from configs.regular_files import open_regular
from orchestration.own_packages import own_command
from orchestration.tracking.server import UiSettings
from orchestration.tracking.store import tracking_uri

HOST = "127.0.0.1"
GRACE_S = 20.0
PAGE = "#/experiments"
"""Where the address leads once the token is taken: to the runs, past MLflow's own welcome."""

TOKEN_FILE = "ui-token"
TOKEN_BYTES = 32


def serve_ui(config: AnyExperiment, *, port: int, stream: TextIO) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: there is no store yet, it is a server already, or the port or the token cannot be had.
        DistillError: the server ended by itself.
    """
    root = Path(os.path.abspath(config.runtime.run_root))
    uri = tracking_uri(config)
    if uri.startswith(("http://", "https://", "databricks")):
        raise ConfigError(f"runtime.tracking_uri={uri} is a server with a page of its own: open that in a browser")
    store = root / "mlflow.db"
    if config.runtime.tracking_uri is None and not store.exists():
        raise ConfigError(f"{store} does not exist: run an experiment first")
    artifacts = root / "mlartifacts"
    with _listening(port) as listening:
        root.mkdir(parents=True, exist_ok=True)
        token = read_token(root / TOKEN_FILE)
        bound = listening.getsockname()[1]
        settings = UiSettings(uri, str(artifacts), token, bound, listening.fileno())
        server = _start(settings)
    stream.write(f"MLflow at http://{HOST}:{bound}/?token={token}{PAGE} (Ctrl-C ends it)\n")
    stream.write(f"The address is for you alone: it opens everything there. The token is kept in {root / TOKEN_FILE}\n")
    stream.flush()
    try:
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        _end(server)
    raise DistillError(f"the MLflow UI ended by itself with exit code {code}; its last lines are above")


def read_token(path: Path) -> str:
    """The token in a file that only its owner can read; a new one if there is none, or others could read it.

    Raises:
        ConfigError: something that is not our file lies there.
    """
    try:
        with open_regular(path) as stream:
            status = os.fstat(stream.fileno())
            token = stream.read(4 * TOKEN_BYTES).decode("ascii", "replace").strip()
        if status.st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to another user, who would know the token: remove it")
        if not stat.S_IMODE(status.st_mode) & 0o077 and len(token) >= TOKEN_BYTES and token.isprintable():
            return token
        path.unlink()
    except FileNotFoundError:
        pass
    except (OSError, DistillError) as error:
        raise ConfigError(f"{path} cannot hold the token of the UI ({error}): remove it") from None
    return _new_token(path)


def _new_token(path: Path) -> str:
    """The token appears whole or not at all; of two that are made at once the first holds for both."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    draft = path.with_name(f"{STAGING}{path.name}-{secrets.token_hex(6)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "w") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(token + "\n")
            try:
                os.link(draft, path)
            except FileExistsError:
                raise
            except OSError:
                # A file system without hard links: whoever comes last holds.
                os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): check runtime.run_root") from None
    return token


def _start(settings: UiSettings) -> subprocess.Popen[bytes]:
    environment = (
        os.environ
        | quiet_environment()
        | {
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # Browsers leave out port 80.
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{settings.port},localhost:{settings.port}"
            + (f",{HOST},localhost" if settings.port == 80 else ""),
        }
    )
    server = subprocess.Popen(
        own_command("orchestration.tracking.server", "-W", "ignore"),
        env=environment,
        stdin=subprocess.PIPE,
        pass_fds=[settings.socket],
    )
    assert server.stdin is not None
    try:
        with server.stdin as pipe:
            pipe.write(json.dumps(settings.fields()).encode())
    except BrokenPipeError:
        pass  # It died at once; its exit code tells.
    return server


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        # `create_server` adds the address to the error's own words.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"port {port} cannot be used ({reason}): name another one with --port") from error
    except OverflowError as error:
        raise ConfigError(f"--port {port} is not a port: name one from 1 to 65535") from error


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ctrl-C in a terminal reaches the server too; any other end of this process must not leave it running."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
