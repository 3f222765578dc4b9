"""What is refused before anything starts: each refusal is one line with the key, the values and the cure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checked_experiments import config, refused

from configs import ConfigError
from configs.schema import ModelShape
from orchestration.inputs.preflight import (
    FREE_MARGIN_BYTES,
    require_compiler,
    require_fitting_lengths,
    require_positions,
    require_writable,
)

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=128)


def test_a_writable_place_is_made_and_left_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "deep" / "runs", key="runtime.run_root")
    assert list((tmp_path / "deep" / "runs").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below", "read-only/below"])
def test_a_place_that_cannot_be_written_names_key_path_and_cure(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    if place.startswith("read-only"):

        def refuse(path: Path, text: str) -> None:
            raise PermissionError(13, "Permission denied")

        # Root may write anywhere, so the refusal is played.
        monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(ConfigError) as error:
        require_writable(tmp_path / place, key="runtime.cache_root")
    text = refused(error)
    assert text.startswith(f"runtime.cache_root={tmp_path / place} cannot be written (")
    assert text.endswith("): name another directory")


def test_a_full_disk_names_what_is_there_and_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**30))
    require_writable(tmp_path, key="runtime.cache_root", needed_bytes=3 * 2**30 - FREE_MARGIN_BYTES)
    with pytest.raises(ConfigError):
        require_writable(tmp_path, key="runtime.cache_root", needed_bytes=3 * 2**30 - FREE_MARGIN_BYTES + 1)
    with pytest.raises(ConfigError) as error:
        require_writable(tmp_path, key="runtime.cache_root", needed_bytes=5 * 2**30)
    assert refused(error) == (
        f"runtime.cache_root={tmp_path} has 3.0 GiB free but the run needs 5.0 GiB and 1 GiB to spare: "
        "free some, or name another directory"
    )


def test_sequences_of_just_the_teachers_length_fit() -> None:
    require_fitting_lengths(config(teacher={"top_k": 300}), teacher=SHAPE)


@pytest.mark.parametrize(("block", "limit"), [("generation", 65), ("evaluation", 100)])
def test_sequences_longer_than_the_teacher_are_refused(block: str, limit: int) -> None:
    with pytest.raises(ConfigError) as error:
        require_fitting_lengths(config(**{block: {"max_new_tokens": limit}}), teacher=SHAPE)
    assert refused(error) == (
        f"data.max_prompt_tokens=64 + {block}.max_new_tokens={limit} is more than the teacher's 128 positions: "
        "lower one of them"
    )


def test_a_k_larger_than_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        require_fitting_lengths(config(teacher={"top_k": 301}), teacher=SHAPE)
    assert refused(error) == "teacher.top_k=301 is more than the teacher's 300 tokens: lower it"


def test_gpus_need_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    require_compiler("cpu")
    with pytest.raises(ConfigError) as error:
        require_compiler("gpu")
    assert refused(error).endswith("install gcc")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    require_compiler("gpu")


def test_an_engine_that_takes_longer_sequences_than_its_model_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        require_positions(config(), model="students.kd", shape=SHAPE, engine="student_engine")
    assert refused(error) == (
        "runtime.student_engine.max_model_len=1024 is more than the 128 positions of students.kd: lower it to 128 or less"
    )
