"""A run directory is continued with the teacher that it was begun with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_engines import IDENTITY
from pipeline_builders import namespace

from configs import ConfigError
from orchestration.pipeline.begun_with import BEGUN_WITH, require_begun_with

OTHER = replace(IDENTITY, weights_sha256="c" * 64)


def teachers(identity: Any, *, door: Any = None) -> Any:
    return {"teacher": namespace(identity=identity, door=door)}


SERVED = namespace(label="noise behind door.example")


def test_another_teacher_behind_the_door_is_refused_with_both_sides(tmp_path: Path) -> None:
    require_begun_with(tmp_path, teachers(IDENTITY, door=SERVED))
    require_begun_with(tmp_path, teachers(IDENTITY, door=SERVED))
    with pytest.raises(ConfigError) as raised:
        require_begun_with(tmp_path, teachers(OTHER, door=SERVED))
    said = str(raised.value)
    assert "noise behind door.example" in said and IDENTITY.digest()[:12] in said and OTHER.digest()[:12] in said
    # It is still the first one that counts.
    require_begun_with(tmp_path, teachers(IDENTITY, door=SERVED))


def test_a_run_of_own_engines_goes_on_behind_a_door_with_the_same_teacher_alone(tmp_path: Path) -> None:
    require_begun_with(tmp_path, teachers(IDENTITY))
    require_begun_with(tmp_path, teachers(IDENTITY, door=SERVED))
    with pytest.raises(ConfigError, match="was begun with"):
        require_begun_with(tmp_path, teachers(OTHER, door=SERVED))


@pytest.mark.parametrize("damage", ["", "[1]", '{"teacher": 3}'])
def test_a_damaged_note_is_written_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / BEGUN_WITH).write_text(damage)
    require_begun_with(tmp_path, teachers(IDENTITY, door=SERVED))
    with pytest.raises(ConfigError, match="was begun with"):
        require_begun_with(tmp_path, teachers(OTHER, door=SERVED))
