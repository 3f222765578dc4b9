"""Weights that were changed behind the memo's back are found, and the memo is put right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache import fingerprint_model
from configs import load_config
from configs.models import ModelSource
from configs.places import FINGERPRINTS
from configs.schema import ModelShape
from orchestration.cache_tools.teacher_check import HashedTeacher, hash_teachers
from orchestration.inputs.models import materialise

SHAPE = ModelShape(layers=1, hidden=16, heads=2, kv_heads=1, mlp=16, vocab=272, max_positions=512)
TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = materialise(ModelSource(random=SHAPE), models_root=tmp_path / "made").directory
    return Path(shutil.copytree(made, tmp_path / "teacher"))


def checked(tmp_path: Path, model: Path, *, told: list[Any] | None = None) -> HashedTeacher:
    overrides = [f"teacher.model={{path: {model}}}", f"runtime.models_root={tmp_path / 'models'}"]
    heard = [] if told is None else told
    (found,) = hash_teachers(
        load_config(TINY, overrides=overrides), config_dir=TINY.parent, progress=lambda *done: heard.append(done)
    )
    return found


def test_every_byte_is_read_though_the_memo_knows_them(tmp_path: Path, model: Path) -> None:
    first = checked(tmp_path, model)
    told: list[Any] = []
    again = checked(tmp_path, model, told=told)
    assert not first.differs and again == first
    size = (model / "model.safetensors").stat().st_size
    assert told and size - 10_000 < told[-1][0] <= told[-1][1] == size


def test_what_was_taken_for_another_is_found_and_put_right(tmp_path: Path, model: Path) -> None:
    sound = checked(tmp_path, model)
    memo = tmp_path / "models" / FINGERPRINTS
    stored = json.loads(memo.read_text())
    (entry,) = stored["files"].values()
    entry["tensors"] = dict.fromkeys(entry["tensors"], "0" * 64)
    memo.write_text(json.dumps(stored))
    found = checked(tmp_path, model)
    assert found.differs and found.read == sound.read and found.remembered != sound.read
    assert not checked(tmp_path, model).differs
    assert fingerprint_model(model, memo=memo) == fingerprint_model(model)


def test_every_teacher_is_hashed_and_one_where_one_is_named(tmp_path: Path, model: Path) -> None:
    second = materialise(ModelSource(random=SHAPE, seed=1), models_root=tmp_path / "made").directory
    config = load_config(
        TINY,
        overrides=[
            f"teacher.model={{path: {model}}}",
            f"teachers={{second: {{model: {{path: {second}}}, dtype: float32, top_k: 16}}}}",
            f"runtime.models_root={tmp_path / 'models'}",
        ],
    )
    told: list[Any] = []
    first, other = hash_teachers(config, config_dir=TINY.parent, progress=lambda *done: told.append(done))
    assert (first.name, other.name) == ("teacher", "second") and first.read != other.read
    sizes = [(each / "model.safetensors").stat().st_size for each in (model, second)]
    # Bytes are those of both, one after the other.
    assert sizes[0] < sum(sizes) - 10_000 < told[-1][0] <= told[-1][1] == sum(sizes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    memo = tmp_path / "models" / FINGERPRINTS
    stored = json.loads(memo.read_text())
    for name, entry in stored["files"].items():
        if str(second) in name:
            entry["tensors"] = dict.fromkeys(entry["tensors"], "0" * 64)
    memo.write_text(json.dumps(stored))
    found = hash_teachers(config, config_dir=TINY.parent, progress=lambda *done: None)
    assert [(each.name, each.differs) for each in found] == [("teacher", False), ("second", True)]
    chosen = hash_teachers(config, config_dir=TINY.parent, progress=lambda *done: None, prefix=other.read[:6])
    assert [each.name for each in chosen] == ["second"]
