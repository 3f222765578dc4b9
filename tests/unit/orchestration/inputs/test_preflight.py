"""What is refused before anything starts: each refusal is one line with the key, the values and the cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from task_files import MOODS

from configs import ConfigError, DistillConfig
from configs.schema import ModelShape
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.preflight import (
    FREE_MARGIN_BYTES,
    require_compiler,
    require_fitting_lengths,
    require_positions,
    require_writable,
    resolve_paths,
    resolve_task_paths,
)

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=128)


def config(**changes: Any) -> DistillConfig:
    raw: dict[str, Any] = {
        "name": "checked",
        "teacher": {"model": {"hub": "a/b"}, "top_k": 16},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")} | {"max_prompt_tokens": 64},
        "generation": {"max_new_tokens": 64},
        "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1}]}},
    }
    for key, value in changes.items():
        raw[key] = raw.get(key, {}) | value
    return DistillConfig.model_validate(raw)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a configuration, with its data files and a model directory."""
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "model").mkdir()
    return tmp_path


def refused(error: pytest.ExceptionInfo[ConfigError]) -> str:
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return str(error.value)


def test_paths_become_real_and_nothing_else_changes(folder: Path) -> None:
    written = config(
        teacher={"model": {"path": "model"}},
        students={"own": {"init": {"model": {"path": "model"}}, "stages": [{"objective": "kd", "steps": 1}]}},
    )
    real = resolve_paths(written, config_dir=folder)
    assert real.data.train.path == folder / "train.jsonl"
    assert real.teacher.model.path == folder / "model"
    assert real.students["own"].init.model is not None
    assert real.students["own"].init.model.path == folder / "model"
    assert real.students["kd"] == written.students["kd"]
    assert real.generation == written.generation
    assert written.data.train.path == Path("train.jsonl")


STAGES = [{"objective": "hard_labels", "epochs": 1.0}]


def task_config(**changes: Any) -> TaskDistillConfig:
    raw: dict[str, Any] = {
        "name": "checked",
        "task": "task.yaml",
        "teacher": {"model": {"path": "model"}},
        "data": {
            "transfer": [{"hub": "a/texts"}, {"path": "train.jsonl"}],
            "augment": {"rules": {"kind": "rules"}, "words": {"kind": "masked_lm", "model": {"path": "model"}}},
        },
        "students": {
            "own": {"start": {"kind": "transformer", "model": {"path": "model"}}, "stages": STAGES},
            "bag": {"start": {"kind": "bag"}, "stages": STAGES},
        },
    }
    return TaskDistillConfig.model_validate(raw | changes)


def test_paths_of_a_task_experiment_become_real_and_nothing_else_changes(folder: Path) -> None:
    (folder / "task.yaml").write_text(json.dumps(MOODS))
    written = task_config()
    real = resolve_task_paths(written, config_dir=folder)
    assert real.task == folder / "task.yaml"
    assert [source.path for source in real.data.transfer] == [None, folder / "train.jsonl"]
    assert real.model_dump()["data"]["augment"]["words"]["model"]["path"] == folder / "model"
    assert real.teacher.model.path == folder / "model"
    assert real.model_dump()["students"]["own"]["start"]["model"]["path"] == folder / "model"
    assert real.students["bag"] == written.students["bag"]
    assert real.data.augment["rules"] == written.data.augment["rules"]
    assert written.task == Path("task.yaml")
    (folder / "words.txt").write_text("nutmeg")
    screened = resolve_task_paths(task_config(content={"blocklist": "words.txt"}), config_dir=folder)
    assert screened.content is not None and screened.content.blocklist == folder / "words.txt"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "odd.yaml"}, "task: odd.yaml: found neither "),
        ({"task": "train.jsonl"}, "task: "),
        ({"teacher": {"model": {"path": "gone"}}}, "teacher.model.path: gone: found neither "),
        ({"content": {"blocklist": "gone.txt"}}, "content.blocklist: gone.txt: found neither "),
        ({"data": {"transfer": [{"path": "gone.jsonl"}]}}, "data.transfer.0.path: gone.jsonl: found neither "),
        ({"data": {"transfer": [{"path": "empty.jsonl"}]}}, "data.transfer.0.path=empty.jsonl is empty: put rows"),
        (
            {"data": {"augment": {"w": {"kind": "continuation", "model": {"path": "gone"}}}}},
            "data.augment.w.model.path: gone: found neither ",
        ),
        (
            {"students": {"s": {"start": {"kind": "transformer", "model": {"path": "gone"}}, "stages": STAGES}}},
            "students.s.start.model.path: gone: found neither ",
        ),
    ],
)
def test_a_file_that_a_task_experiment_lacks_is_named_by_its_key(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    (folder / "task.yaml").write_text(json.dumps(MOODS))
    (folder / "empty.jsonl").touch()
    with pytest.raises(ConfigError) as error:
        resolve_task_paths(task_config(**changes), config_dir=folder)
    assert str(error.value).startswith(words)


def test_tasks_become_real_and_one_that_is_missing_is_named(folder: Path) -> None:
    (folder / "task.yaml").write_text(json.dumps(MOODS))
    real = resolve_paths(config(evaluation={"tasks": ["task.yaml"]}), config_dir=folder)
    assert real.evaluation.tasks == (folder / "task.yaml",)
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(evaluation={"tasks": ["task.yaml", "odd.yaml"]}), config_dir=folder)
    assert refused(error).startswith(f"evaluation.tasks.1: odd.yaml: found neither {folder}/odd.yaml nor ")


def test_a_file_that_is_no_task_is_refused_before_any_model_is_looked_at(folder: Path) -> None:
    (folder / "task.yaml").write_text(json.dumps(dict(MOODS) | {"fields": {"label": "mood", "text": "text"}}))
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(evaluation={"tasks": ["task.yaml"]}), config_dir=folder)
    assert refused(error).startswith(
        f"evaluation.tasks.0: {folder}/task.yaml: fields.text=text: kind=classification knows"
    )


def test_a_hub_data_set_has_no_path_to_resolve(folder: Path) -> None:
    data = {"train": {"hub": "some/set"}}
    assert resolve_paths(config(data=data), config_dir=folder).data.train.path is None


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_missing_data_file_names_its_key_and_the_places_that_were_tried(split: str, folder: Path) -> None:
    (folder / f"{split}.jsonl").unlink()
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(), config_dir=folder)
    text = refused(error)
    assert text.startswith(f"data.{split}.path: {split}.jsonl: found neither {folder / f'{split}.jsonl'} nor ")
    assert text.endswith("correct the path or put the file there")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"teacher": {"model": {"path": "gone"}}}, "teacher.model.path"),
        (
            {"students": {"kd": {"init": {"model": {"path": "gone"}}, "stages": [{"objective": "kd", "steps": 1}]}}},
            "students.kd.init.model.path",
        ),
    ],
)
def test_a_missing_model_directory_names_its_key(changes: dict[str, Any], key: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(**changes), config_dir=folder)
    assert refused(error).startswith(f"{key}: gone: found neither {folder / 'gone'} nor ")


def test_an_empty_data_file_is_refused(folder: Path) -> None:
    (folder / "dev.jsonl").write_text("")
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(), config_dir=folder)
    assert refused(error) == "data.dev.path=dev.jsonl is empty: put prompts in it or name another file"


def test_a_directory_is_no_data_file(folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(data={"train": {"path": "model"}}), config_dir=folder)
    assert refused(error) == "data.train.path=model is not a file: name a .jsonl, .parquet, .csv or .conll file"


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
