"""`distill ui`: a server on loopback that ends with its command, and a token for its owner alone."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError, DistillConfig, DistillError
from orchestration.commands.ui import HOST, read_token, serve_ui
from orchestration.own_packages import own_command

POPEN, WAIT = subprocess.Popen, subprocess.Popen.wait


def config(tmp_path: Path, **generation: Any) -> DistillConfig:
    split = {"path": "x.jsonl"}
    return DistillConfig.model_validate(
        {
            "name": "looked-at",
            "teacher": {"model": {"hub": "a/b"}},
            "data": {"train": split, "dev": split, "test": split},
            "generation": generation,
            "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}},
            "runtime": {"run_root": str(tmp_path / "runs")},
        }
    )


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts `sleep` in place of the MLflow server, or what INSTEAD says in the environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], *, env: dict[str, str], stdin: int, pass_fds: list[int]) -> subprocess.Popen[bytes]:
        # Neither the store nor the token is among the arguments, which everybody can read.
        assert command == own_command("orchestration.tracking.server", "-W", "ignore")
        (inherited,) = pass_fds
        with socket.socket(fileno=os.dup(inherited)) as listening:
            assert listening.getsockname()[0] == "127.0.0.1"
        assert env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
        started.append(POPEN(["sh", "-c", env.get("INSTEAD", "exec sleep 600")], env=env, stdin=stdin))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    yield started
    for server in started:
        server.kill()
        server.wait()


def with_store(tmp_path: Path) -> DistillConfig:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").touch()
    return config(tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_the_browser_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mlflow\.db does not exist: run an experiment first"):
        serve_ui(config(tmp_path), port=free_port(), stream=io.StringIO())


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} cannot be used \(Address already in use\): name another"):
            serve_ui(with_store(tmp_path), port=port, stream=io.StringIO())


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_one_line(port: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"--port {port} is not a port: name one from 1 to 65535"):
        serve_ui(with_store(tmp_path), port=port, stream=io.StringIO())


def test_a_server_that_ends_by_itself_is_an_error(
    tmp_path: Path, servers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "INSTEAD", "exit 3")
    with pytest.raises(DistillError, match="ended by itself with exit code 3"):
        serve_ui(with_store(tmp_path), port=free_port(), stream=io.StringIO())


def test_ctrl_c_ends_the_server_too(
    tmp_path: Path, servers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(server: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None and server.poll() is None:
            raise KeyboardInterrupt
        return WAIT(server, timeout)

    stream, port = io.StringIO(), free_port()
    monkeypatch.setattr(POPEN, "wait", interrupted)
    serve_ui(with_store(tmp_path), port=port, stream=stream)
    token = (tmp_path / "runs/ui-token").read_text().strip()
    assert stream.getvalue().startswith(
        f"MLflow at http://127.0.0.1:{port}/?token={token}#/experiments (Ctrl-C ends it)\n"
    )
    assert servers[0].poll() is not None


def test_the_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ui-token"
    token = read_token(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token(path) == token
    # A token that others could read is no secret any more.
    path.chmod(0o644)
    assert read_token(path) != token
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("short")
    assert len(read_token(path)) >= 32


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_not_our_token_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ui-token"
    if kind == "link":
        (tmp_path / "theirs").write_text("x" * 43)
        path.symlink_to(tmp_path / "theirs")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot hold the token of the UI \(.+\): remove it"):
        read_token(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_token_that_another_user_chose_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ui-token"
    read_token(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_token(path)


def test_pages_that_are_opened_at_once_have_one_token(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"ui-token-{number}"
        with ThreadPoolExecutor(4) as pool:
            tokens = set(pool.map(read_token, [path] * 4))
        assert tokens == {path.read_text().strip()}
    assert len(list(tmp_path.iterdir())) == 20
