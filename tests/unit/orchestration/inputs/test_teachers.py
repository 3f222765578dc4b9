"""The teacher of an experiment: what is refused before an engine starts, who it is, and what is written down of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment, model_in

from cache import TeacherIdentity
from configs import DistillConfig, DistillError
from orchestration.environment import VLLM, installed_version
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import identity_of, open_cache, open_teacher, open_teachers

MEMO = "models_root/fingerprints.json"


def mend(**changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_in(tmp_path), tmp_path / "teacher"))


def config_of(model: Path, **teacher: Any) -> DistillConfig:
    block = {"model": {"path": str(model)}, "dtype": "float32", "top_k": 4, **teacher}
    return experiment(model.parent, teacher=block)


def test_a_teacher_is_its_files_and_who_they_are_in_its_dtype(model: Path) -> None:
    one, other = open_teacher(config_of(model)), open_teacher(config_of(model, dtype="bfloat16"))
    assert one.files.directory == model and one.identity.dtype == "float32"
    assert other.identity == replace(one.identity, dtype="bfloat16")


def test_the_bytes_that_are_hashed_are_reported(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_teacher(config_of(model), progress=lambda done, total: seen.append((done, total)))
    done = [hashed for hashed, _ in seen]
    size = (model / "model.safetensors").stat().st_size
    # All but the header of the file, which is not hashed.
    assert done == sorted(done) and done[0] > 0 and {total for _, total in seen} == {size}
    assert 0.9 * size < done[-1] <= size


@pytest.mark.parametrize(
    ("change", "teacher", "said"),
    [
        (mend(vocab_size=200), {}, "its tokenizer has 261 tokens, its config.json 200"),
        (mend(architectures=None), {}, "names no architectures"),
        (
            mend(model_type="gemma2"), {"dtype": "float16"},
            r"teacher\.dtype=float16 overflows in a gemma2 model",
        ),
        (mend(), {"top_k": 262}, r"teacher\.top_k=262 is more than the teacher's 261 tokens"),
        (
            mend(max_position_embeddings=40), {},
            r"runtime\.teacher_engine\.max_model_len=64 is more than the 40 positions of the teacher",
        ),
    ],
)  # fmt: skip
def test_a_teacher_that_its_engine_would_refuse_is_refused_before(
    change: Callable[[Path], None], teacher: dict[str, Any], said: str, model: Path
) -> None:
    change(model)
    config = config_of(model, **teacher)
    with pytest.raises(DistillError, match=said):
        open_teacher(config)
    if teacher:
        # What a further teacher lacks is said of that one.
        good = config.teacher.model_copy(update={"dtype": "float32", "top_k": 4})
        several = config.model_copy(update={"teacher": good, "teachers": {"second": config.teacher}})
        with pytest.raises(DistillError, match=said.replace("teacher", "teachers.second", 1)):
            open_teachers(several)


@pytest.mark.parametrize("remember", [True, False])
def test_what_files_hash_to_is_remembered_where_it_is_wanted(remember: bool, model: Path, tmp_path: Path) -> None:
    files = open_model(model, label="m")
    identity = identity_of(files, config=config_of(model), dtype="float32", remember=remember)
    assert isinstance(identity, TeacherIdentity)
    assert (tmp_path / MEMO).exists() == remember


def test_the_cache_is_that_of_the_identity_and_says_what_wrote_it(model: Path, tmp_path: Path) -> None:
    config = config_of(model)
    teacher = open_teacher(config)
    cache = open_cache(config, teacher)
    assert cache.identity == teacher.identity
    assert (tmp_path / "cache_root" / teacher.identity.digest() / "identity.json").exists()
    said = teacher.provenance(config)
    assert said["model"] == teacher.files.label and said["dataset"] == str(config.data.train.path)
    assert (said["vllm"], said["stillroom"]) == (installed_version(*VLLM), installed_version("stillroom"))
    assert said["template"] == config.data.template
