"""The door as a deployment, without a cluster: what it logs of each request (whole: tests/slow)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.cluster.serving_door import _write_accesses
from teacher_server.http.exchange import ACCESS_LOG, Exchange


@pytest.fixture
def accesses() -> Iterator[logging.Logger]:
    logger = logging.getLogger(ACCESS_LOG)
    before, level, propagates = list(logger.handlers), logger.level, logger.propagate
    yield logger
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = propagates


def test_each_request_is_a_line_of_a_file_that_may_be_rotated(tmp_path: Path, accesses: logging.Logger) -> None:
    path = tmp_path / "access.jsonl"
    _write_accesses(path)
    Exchange("one", "GET").write()
    path.rename(tmp_path / "rotated")
    Exchange("two", "GET").write()
    assert '"request_id": "one"' in (tmp_path / "rotated").read_text()
    assert '"request_id": "two"' in path.read_text() and not accesses.propagate
