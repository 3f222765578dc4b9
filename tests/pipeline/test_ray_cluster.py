"""Attaching to a cluster that is not there: one line at once, and no minutes of trying."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from configs import ConfigError
from orchestration.ray_cluster import ALIVE, PREFIX, _sweep, cluster


def test_what_others_left_in_the_temporary_directory_stops_no_start(tmp_path: Path) -> None:
    pipe, link, dead = (tmp_path / f"{PREFIX}{name}" for name in ("pipe", "link", "dead"))
    for directory in (pipe, link, dead):
        directory.mkdir()
    os.mkfifo(pipe / ALIVE)
    (link / ALIVE).symlink_to("/dev/zero")
    (tmp_path / f"{PREFIX}file").write_text("x")
    (dead / ALIVE).touch()
    _sweep(tmp_path)
    assert [path.exists() for path in (pipe, link, dead)] == [True, True, False]


def test_an_address_where_nobody_listens_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"nobody listens at --ray-address {address}.*ray start"),
        cluster(address=address, gpus=0),
    ):
        pass
