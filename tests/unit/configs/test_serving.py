"""The block `runtime.serve`: what would be unsafe or cannot be is refused with its cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.runtime import RuntimeConfig
from configs.serving import ServeConfig

TLS = {"certificate": Path("door.pem"), "private_key": Path("door.key")}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.53"])
def test_loopback_needs_no_certificate(host: str) -> None:
    assert ServeConfig(host=host).on_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "door.example", "::"])
def test_beyond_loopback_there_is_tls_or_nothing(host: str) -> None:
    with pytest.raises(ValidationError, match=f"host={host} can be reached from other machines.*set certificate"):
        ServeConfig(host=host)
    assert not ServeConfig(host=host, **TLS).on_loopback


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"certificate": Path("door.pem")}, "TLS needs both"),
        ({"private_key": Path("door.key")}, "TLS needs both"),
        ({"least_engines": 3, "most_engines": 2}, "most_engines=2 is less than least_engines=3"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"most_rows": 0}, "greater than 0"),
        ({"hots": ("door",)}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServeConfig(**given)


def test_a_runtime_without_a_door_is_written_as_before() -> None:
    assert "serve" not in RuntimeConfig().model_dump()
    assert RuntimeConfig(serve=ServeConfig(port=9000)).model_dump()["serve"]["port"] == 9000
