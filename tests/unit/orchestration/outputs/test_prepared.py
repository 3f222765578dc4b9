"""What a tuned teacher became is found again; what is not sound is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.outputs.prepared import PREPARED, note_prepared, noted_prepared


def test_every_teacher_is_noted_by_its_name(tmp_path: Path) -> None:
    note_prepared(tmp_path, "teacher", digest="a" * 64)
    note_prepared(tmp_path, "other", digest="b" * 64)
    note_prepared(tmp_path, "teacher", digest="c" * 64)
    assert noted_prepared(tmp_path) == {"teacher": "c" * 64, "other": "b" * 64}


@pytest.mark.parametrize("text", ["{", "[1]", '{"teacher": 3}'])
def test_what_is_not_sound_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / PREPARED).write_text(text)
    assert noted_prepared(tmp_path) == {}
