"""Which teachers lie below a root, and where each of them lies."""

from __future__ import annotations

from pathlib import Path

from store_builders import OTHER_TEACHER, TEACHER

from cache.disk.local_storage import LocalStorage
from cache.disk.object_storage import ObjectStorage
from cache.disk.roots import list_teachers, open_storage


def test_a_directory_and_a_url_get_a_place_of_their_kind(tmp_path: Path) -> None:
    here = open_storage(tmp_path, TEACHER.digest(), create=True)
    assert isinstance(here, LocalStorage) and here.place == str(tmp_path / TEACHER.digest())
    there = open_storage("s3://bucket/prefix/", TEACHER.digest(), create=True)
    assert isinstance(there, ObjectStorage) and there.place == f"s3://bucket/prefix/{TEACHER.digest()}"


def test_a_teacher_is_a_directory_that_is_called_by_a_digest_and_holds_something(tmp_path: Path) -> None:
    for teacher in (TEACHER, OTHER_TEACHER):
        open_storage(tmp_path, teacher.digest(), create=True).replace("identity.json", b"{}")
    open_storage(tmp_path, "e" * 64, create=True)  # evicted: folders alone
    open_storage(tmp_path, "backup", create=True).replace("identity.json", b"{}")
    assert list_teachers(tmp_path) == sorted([TEACHER.digest(), OTHER_TEACHER.digest()])
