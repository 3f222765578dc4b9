"""Files that a configuration names are found, or refused by their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checked_experiments import config, refused
from task_files import MOODS

from configs import ConfigError
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.real_paths import resolve_paths, resolve_task_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a configuration, with its data files and a model directory."""
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "model").mkdir()
    return tmp_path


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
