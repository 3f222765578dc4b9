"""The place of one teacher: whose it is, and of which format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_builders import (
    OTHER_TEACHER,
    TEACHER,
    open_cache,
    teacher_dir,
)

from cache.store import TeacherCache
from configs.errors import CacheError, ConfigError


def test_an_unwritable_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(tmp_path)
    monkeypatch.setattr("cache.disk.local_storage.os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable"):
        TeacherCache.open(tmp_path, TEACHER)
    assert TeacherCache.open(tmp_path, TEACHER, create=False).stats().records == 0


def test_a_future_format_is_refused_by_its_number(tmp_path: Path) -> None:
    open_cache(tmp_path)
    described = teacher_dir(tmp_path) / "identity.json"
    body = json.loads(described.read_text())
    described.write_text(json.dumps({**body, "format": 7}))
    with pytest.raises(CacheError, match=r"format 7.*upgrade"):
        open_cache(tmp_path)
    described.write_text("{")
    with pytest.raises(CacheError, match="delete this file"):
        open_cache(tmp_path)
    described.unlink()
    open_cache(tmp_path)
    assert json.loads(described.read_text()) == body


def test_a_place_of_another_teacher_is_an_error_that_names_both(tmp_path: Path) -> None:
    open_cache(tmp_path)
    theirs = teacher_dir(tmp_path, identity=OTHER_TEACHER)
    open_cache(tmp_path, identity=OTHER_TEACHER)
    (theirs / "identity.json").write_bytes((teacher_dir(tmp_path) / "identity.json").read_bytes())
    with pytest.raises(CacheError, match=rf"{TEACHER.digest()}, not {OTHER_TEACHER.digest()}"):
        open_cache(tmp_path, identity=OTHER_TEACHER)
