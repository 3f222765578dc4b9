"""Which teachers of an experiment are checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipeline_builders import KD, SHAPE, experiment, model_in
from remote_runs import remote, remote_experiment

from configs import ConfigError
from orchestration.cache_tools import configured_teachers as module
from orchestration.cache_tools.configured_teachers import configured_teachers
from orchestration.inputs.teachers import open_teachers


def test_all_of_them_unless_one_is_named_by_its_identity(tmp_path: Path) -> None:
    second = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    config = experiment(tmp_path, teachers={"second": second})
    found = configured_teachers(config, None)
    digests = {name: teacher.identity.digest() for name, teacher in found.items()}
    assert list(digests) == ["teacher", "second"]
    assert list(configured_teachers(config, digests["second"][:6].upper())) == ["second"]
    words = (
        f"no teacher of fake begins with zzzz: name 4 or more digits; teacher is {digests['teacher'][:12]}, second is"
    )
    for prefix in ("zzzz", digests["second"][:3]):
        with pytest.raises(ConfigError, match=words.replace("zzzz", prefix)):
            configured_teachers(config, prefix)


def test_a_teacher_whose_weights_are_behind_a_door_is_verified_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Path(shutil.copytree(model_in(tmp_path, seed=9), tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    serve = {"url": "https://teacher.example:8100"}
    students = {"kd": {"init": {"model": {"path": str(model_in(tmp_path))}}, "stages": [KD]}}
    teacher = {"model": {"path": str(bare)}, "dtype": "float32", "top_k": 4, "serve": serve}
    config = experiment(tmp_path, teacher=teacher, students=students)
    monkeypatch.setattr(module, "open_teachers", lambda config: open_teachers(config, doors={}))
    with pytest.raises(
        ConfigError, match=r"^teacher\.model=.*bare holds no weights, because the teacher answers behind"
    ):
        configured_teachers(config, None)


def test_what_nobody_can_hash_nobody_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path, monkeypatch) as (server, block):
        config = remote_experiment(tmp_path, block)
        with pytest.raises(
            ConfigError, match=r"^teacher: noise \(revision 3, .*its rows can only be held against what"
        ):
            configured_teachers(config, None)
        assert server.asked == []
