"""Attaching to a cluster that is not there: one line at once, and no minutes of trying."""

from __future__ import annotations

import socket

import pytest

from configs import ConfigError
from orchestration.cluster.private import cluster


def test_an_address_where_nobody_listens_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"nobody listens at --ray-address {address}.*ray start"),
        cluster(address=address, gpus=0),
    ):
        pass
