"""Directories that appear whole or not at all, their numbers, and what goes along when a model becomes another."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.places import CURVES, SUMMARY
from student_train.files import copy_companions, numbered, staged_directory


def test_a_directory_appears_whole_and_replaces_the_one_before_it(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    for content in ("first", "second"):
        with staged_directory(final) as staging:
            (staging / "below").mkdir()
            (staging / "below" / "file").write_text(content)
            assert staging.parent == final.parent
            assert not final.exists() or (final / "below/file").read_text() == "first"
        assert (final / "below/file").read_text() == content
    assert list(final.parent.iterdir()) == [final]


def test_an_error_leaves_what_was_there_before(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "kept").touch()
    with pytest.raises(OSError, match="no space left"), staged_directory(final) as staging:
        (staging / "half").touch()
        raise OSError("no space left")
    assert [path.name for path in tmp_path.rglob("*")] == ["final", "kept"]


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("part-999", "part-1000", "part-002", "part-10", "part-x", "part-", "part-²", "part--1", "other-5"):
        (tmp_path / name).mkdir()
    assert numbered(tmp_path, "part-") == [
        (number, tmp_path / f"part-{name}") for number, name in ((2, "002"), (10, "10"), (999, "999"), (1000, "1000"))
    ]
    assert numbered(tmp_path / "nothing", "part-") == []


def test_what_a_stage_says_of_itself_does_not_pass_to_the_next(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    for name in (SUMMARY, CURVES, "README.md", "config.json", "model.safetensors", "tokenizer.json", "LICENSE"):
        (before / name).write_text(name)
    copy_companions(before, after)
    assert sorted(path.name for path in after.iterdir()) == ["LICENSE", "tokenizer.json"]
