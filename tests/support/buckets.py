"""A cache in a bucket, for tests: the server, a prefix that nobody has used, and answers put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_server import new_url, object_server
from store_builders import TEACHER, VOCAB, answer, make_request

from cache.store import TeacherCache

REQUESTS = [make_request([3, 4, number]) for number in range(5, 13)]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with object_server() as environment:
        yield environment


@pytest.fixture()
def url(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path / "copies"))
    return new_url()


def fill(root: str) -> list[bytes]:
    answers = [answer(request) for request in REQUESTS]
    TeacherCache.open(root, TEACHER).put(answers, vocab=VOCAB)
    return [record.key for record, _ in answers]
