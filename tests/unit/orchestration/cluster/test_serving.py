"""Opening the door under Ray Serve, without a cluster: where it listens, and why it cannot be opened (whole: tests/slow)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve._private import api

from configs import EngineError
from configs.serving import ServeConfig
from orchestration.cluster.serving import LISTENING_S, _http, _why, open_door


@pytest.mark.parametrize("error", [RuntimeError("port taken"), ActorDiedError(), TimeoutError("not up")])
def test_a_door_that_cannot_be_opened_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    waited = []

    def start(**_: object) -> None:
        waited.append(api.HTTP_PROXY_TIMEOUT)
        raise error

    before = api.HTTP_PROXY_TIMEOUT
    monkeypatch.setattr(serve, "start", start)
    with pytest.raises(EngineError, match=r"^the door cannot be opened \(.+\); its logs are in") as raised:
        open_door({}, ServeConfig(), tokens=tmp_path / "tokens.json", log_dir=tmp_path)
    assert "\n" not in str(raised.value) and waited == [LISTENING_S] and before == api.HTTP_PROXY_TIMEOUT


def test_the_door_listens_where_it_is_told_and_with_tls_where_there_are_files() -> None:
    plain = _http(ServeConfig(port=9001))
    assert (plain.host, plain.port, plain.ssl_certfile) == ("127.0.0.1", 9001, None)
    tls = _http(ServeConfig(host="10.1.2.3", certificate=Path("door.pem"), private_key=Path("door.key")))
    assert (tls.host, tls.ssl_certfile, tls.ssl_keyfile) == ("10.1.2.3", "door.pem", "door.key")


def test_of_a_page_of_serve_the_line_that_says_it_is_told() -> None:
    page = "Deploying app 'stillroom' failed:\n  Traceback\n  configs.errors.EngineError: out of memory\nsee the logs\n"
    assert _why(RuntimeError(page)) == "configs.errors.EngineError: out of memory"
    assert _why(RuntimeError("no more")) == "no more" and _why(RuntimeError()) == "RuntimeError"
