"""What rests on rows is found by their keys, in every kind of view, and by the cards of students."""

from __future__ import annotations

from pathlib import Path

import pytest
from rewriting_builders import put_each, storage_of
from store_builders import open_cache

from cache.view_files import ViewFile, save_view_file
from cache.views import CacheView
from orchestration.cache_tools.taught import Taught, taught_by


@pytest.fixture
def held(tmp_path: Path) -> tuple[list[bytes], CacheView]:
    """Three rows of a cache and a view of the first two."""
    keys = [record.key for record in put_each(tmp_path / "cache", [5, 6, 7])]
    return keys, open_cache(tmp_path / "cache").view(keys[:2], dataset="d", k=8)


def taught(root: Path, *keys: bytes, task_runs: tuple[Path, ...] = ()) -> Taught:
    return taught_by(keys, storages=[storage_of(root / "cache")], run_root=root / "runs", task_runs=task_runs)


def student(root: Path, name: str, says: str) -> Path:
    folder = root / "runs" / "students" / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(says)
    return folder


def test_views_and_what_is_made_of_them_name_their_rows(tmp_path: Path, held: tuple[list[bytes], CacheView]) -> None:
    keys, view = held
    folder = tmp_path / "runs" / "run-1" / "views"
    view.save(folder / "teacher-train.npz")
    save_view_file(folder / "deep" / "a.safetensors", ViewFile((view,), {}, {}), kind="made", digest="d" * 64)
    (folder / "b.safetensors").write_bytes(b"no view")
    found = taught(tmp_path, keys[0])
    assert found.views == (folder / "teacher-train.npz",)
    assert found.lessons == (folder / "deep" / "a.safetensors",)
    assert taught(tmp_path, keys[2]) == Taught((), (), ())


def test_students_are_named_by_the_pinned_view_of_their_card_or_as_writers_of_rollouts(
    tmp_path: Path, held: tuple[list[bytes], CacheView]
) -> None:
    keys, view = held
    mine = student(tmp_path, "1" * 16, f"- Cache view (SHA-256): `{view.digest}`")
    student(tmp_path, "2" * 16, f"- Cache view (SHA-256): `{'e' * 64}`")
    assert taught(tmp_path, keys[1]).students == (mine,)
    writer = student(tmp_path, "abcdefabcdef0000", "nothing")
    open_cache(tmp_path / "cache").view(keys[2:], dataset="rollout-abcdefabcdef-003", k=8)
    assert taught(tmp_path, keys[2]).students == (writer,)


def test_lessons_of_tasks_go_with_their_run(tmp_path: Path, held: tuple[list[bytes], CacheView]) -> None:
    keys, _ = held
    lesson = tmp_path / "runs" / "run-1" / "views" / f"train-{'a' * 16}.safetensors"
    lesson.parent.mkdir(parents=True)
    lesson.write_bytes(b"token ids")
    mine = student(tmp_path, "1" * 16, f"- Examples (SHA-256): `{'a' * 64}`")
    assert taught(tmp_path, keys[0]) == Taught((), (), ())
    found = taught(tmp_path, keys[0], task_runs=(tmp_path / "runs" / "run-1",))
    assert found == Taught((), (lesson,), (mine,))
