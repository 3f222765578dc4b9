"""A cluster of one's own keeps its files where everybody may write; one that is not there is refused at once."""

from __future__ import annotations

import inspect
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray._private import node, services

from configs import ConfigError, EngineError
from orchestration.cluster import private
from orchestration.cluster.private import LONGEST_SOCKET, SOCKET_BYTES, _short_place, cluster
from orchestration.outputs.scratch import PREFIX


def _directory(place: Path, name: str) -> Path:
    directory = place / f"{PREFIX}{name}"
    directory.mkdir(mode=0o700)
    return directory


def test_a_short_directory_for_temporary_files_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert _short_place() == Path(short)
        assert len(f"{short}{LONGEST_SOCKET}") <= SOCKET_BYTES


def test_a_long_one_is_replaced_or_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert _short_place() == Path("/tmp")
    monkeypatch.setattr(private, "SHORT_PLACES", (Path("/nowhere"),))
    with pytest.raises(ConfigError, match=r"TMPDIR=.*longlong.* is too long .* set TMPDIR to"):
        _short_place()


def test_no_place_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(ConfigError, match=r"No usable temporary directory.*set TMPDIR"):
        _short_place()


def test_an_address_where_nobody_listens_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"nothing listens at --ray-address {address}.*ray start"),
        cluster(address=address, gpus=0),
    ):
        pass


def _starting(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[str]:
    """Ray whose first starts end with these errors; what is done to it."""
    done, left = list[str](), list(errors)

    def init(**_: object) -> None:
        done.append("init")
        if left:
            raise left.pop(0)

    monkeypatch.setattr(private.ray, "init", init)
    monkeypatch.setattr(private.ray, "shutdown", lambda: done.append("shutdown"))
    monkeypatch.setattr(private, "_require_loopback", lambda: None)
    return done


def test_daemons_that_are_not_up_in_time_are_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done = _starting(monkeypatch, Exception("The current node timed out during startup.\nThis could happen"))
    directory = _directory(tmp_path, "busy")
    code = "import time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline(), "a program that only begins has no arguments yet"
        private._start(directory, gpus=0)
        assert daemon.wait(timeout=10) == -signal.SIGKILL
    assert done == ["init", "shutdown", "init"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "started again: The current node timed out during startup." in line and "\n" not in line


@pytest.mark.parametrize(
    ("errors", "starts"),
    [([Exception("timed out")] * 2, 2), ([RuntimeError("no room")], 1), ([PermissionError("no")], 1)],
    ids=["never in time", "runtime", "files"],
)
def test_a_cluster_that_does_not_start_is_one_line(
    errors: list[Exception], starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _starting(monkeypatch, *errors)
    with pytest.raises(EngineError, match=r"^the local Ray cluster did not start: (timed out|no room|no)"):
        private._start(_directory(tmp_path, "busy"), gpus=0)
    assert done.count("init") == starts


def test_ray_s_daemon_is_waited_for_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def not_yet(gcs_address: str, node_id: str) -> str:
        asked.append(node_id)
        if len(asked) < 5:
            raise RuntimeError("no such node")
        return gcs_address

    monkeypatch.setattr(services, "get_node", not_yet)
    monkeypatch.setattr(private, "DAEMON_POLL_S", 0.0)
    with private._patience():
        assert services.get_node("there", "me") == "there"
    assert asked == ["me"] * 5 and services.get_node is not_yet
    monkeypatch.setattr(private, "DAEMON_START_S", 0.0)
    asked.clear()
    with private._patience(), pytest.raises(RuntimeError, match="no such node"):
        services.get_node("there", "me")


def test_ray_still_looks_for_its_daemon_where_patience_is_put() -> None:
    """A release that looks elsewhere would be waited for no longer than half a minute, and nobody would notice."""
    source = inspect.getsource(node.Node.__init__)
    assert "ray._private.services.get_node(" in source and "raylet_start_wait_time_s" in source
