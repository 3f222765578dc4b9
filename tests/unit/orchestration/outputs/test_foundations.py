"""What an experiment rests on is known by content: where it lies and what it is called does not matter."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from task_files import write_task

from configs import ConfigError, DistillConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.foundations import (
    UNUSABLE,
    RestsOn,
    content_of,
    experiment_digest,
    model_digest,
    require_unchanged,
    rested_on,
    what_broke,
)


def write_model(folder: Path, *, value: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full((4, 4), value, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / "tokenizer.json").write_text('{"vocab": {}}')
    (folder / "notes.md").write_text("made by hand")
    return folder


def experiment(place: Path, *, model: dict[str, Any] | None = None, **stage: Any) -> DistillConfig:
    """An experiment whose files lie in a folder."""
    return DistillConfig.model_validate(
        {
            "name": "x",
            "teacher": {"model": model or {"path": "teacher"}},
            "data": {name: {"path": f"{name}.jsonl"} for name in ("train", "dev", "test")},
            "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 1, **stage}]}},
            "runtime": {name: str(place / name) for name in ("run_root", "cache_root", "models_root")},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    write_model(made / "teacher", value=1.0)
    for name in ("train", "dev", "test"):
        (made / f"{name}.jsonl").write_text(name)
    return made


def test_a_model_is_its_weights_its_config_and_what_reads_for_it(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        return model_digest(folder, models_root=tmp_path / "models")

    folder = write_model(tmp_path / "model", value=1.0)
    first = digest(folder)
    assert digest(write_model(tmp_path / "same", value=1.0)) == first
    assert digest(write_model(tmp_path / "other", value=2.0)) != first
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    second = digest(folder)
    assert second != first
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert digest(folder) not in (first, second)


def test_every_file_that_is_named_has_a_digest_by_its_key(folder: Path, tmp_path: Path) -> None:
    assert content_of(experiment(tmp_path), config_dir=folder) == {
        **{f"data.{name}.path": hashlib.sha256(name.encode()).hexdigest() for name in ("train", "dev", "test")},
        "teacher.model": model_digest(folder / "teacher", models_root=tmp_path),
    }


def test_what_cannot_be_read_is_unusable_and_no_error(folder: Path, tmp_path: Path) -> None:
    (folder / "dev.jsonl").unlink()
    config = experiment(tmp_path, model={"package": "no_such_package", "file": "m.gguf"})
    found = content_of(config, config_dir=folder)
    assert (found["data.dev.path"], found["teacher.model"]) == (UNUSABLE, UNUSABLE)
    assert UNUSABLE not in (found["data.train.path"], found["data.test.path"])


def test_a_model_inside_a_package_is_its_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packed_model").mkdir()
    (tmp_path / "packed_model/__init__.py").touch()
    (tmp_path / "packed_model/m.gguf").write_bytes(b"test")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    config = experiment(tmp_path, model={"package": "packed_model", "file": "m.gguf"})
    assert content_of(config, config_dir=folder)["teacher.model"].startswith("9f86d081884c7d65")


def test_a_model_that_is_a_folder_inside_a_package_is_its_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed_folder").mkdir()
    (tmp_path / "packed_folder/__init__.py").touch()
    model = write_model(tmp_path / "packed_folder/model", value=1.0)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    config = experiment(tmp_path, model={"package": "packed_folder", "file": "model"})
    found = content_of(config, config_dir=folder)["teacher.model"]
    assert found == model_digest(model, models_root=tmp_path / "models")
    write_model(model, value=2.0)
    assert content_of(config, config_dir=folder)["teacher.model"] not in (found, UNUSABLE)


def test_a_report_is_broken_when_a_model_that_changed_its_texts_has_changed_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed_words").mkdir()
    (tmp_path / "packed_words/__init__.py").touch()
    write_model(tmp_path / "packed_words/model", value=1.0)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    write_model(tmp_path / "teacher", value=1.0)
    words = {"kind": "masked_lm", "model": {"package": "packed_words", "file": "model"}}
    config = TaskDistillConfig.model_validate(
        {
            "name": "x",
            "task": "task.yaml",
            "teacher": {"model": {"path": str(tmp_path / "teacher")}},
            "data": {"augment": {"words": words}},
            "students": {
                "bag": {
                    "start": {"kind": "bag"},
                    "stages": [{"objective": "logit_mse", "data": ["train", "words"], "epochs": 1.0}],
                }
            },
            "runtime": {name: str(tmp_path / name) for name in ("run_root", "cache_root", "models_root")},
        }
    )
    directories = {"teacher.model": tmp_path / "teacher", "data.augment.words.model": tmp_path / "packed_words/model"}
    rests_on = rested_on(config, directories=directories, starts=(), students=(), run_dir=tmp_path)

    def broken() -> str | None:
        return what_broke(rests_on, config=config, run_dir=tmp_path, artifacts=Artifacts(tmp_path / "run_root"))

    assert broken() is None
    write_model(tmp_path / "packed_words/model", value=2.0)
    assert str(broken()).startswith("data.augment.words.model is not what it was")
    shutil.rmtree(tmp_path / "packed_words/model")
    assert str(broken()).startswith("data.augment.words.model is not what it was")


def test_a_model_of_a_hub_is_not_content(folder: Path, tmp_path: Path) -> None:
    found = content_of(experiment(tmp_path, model={"hub": "a/b"}), config_dir=folder)
    assert set(found) == {"data.train.path", "data.dev.path", "data.test.path"}


def test_a_task_is_its_file_and_its_rows(folder: Path, tmp_path: Path) -> None:
    path = write_task(folder / "tasks")
    config = experiment(tmp_path)
    tasks = config.evaluation.model_copy(update={"tasks": (Path("tasks/task.yaml"), Path("absent.yaml"))})
    config = config.model_copy(update={"evaluation": tasks})

    def content() -> dict[str, str]:
        return content_of(config, config_dir=folder)

    before = content()
    assert before["evaluation.tasks.1"] == UNUSABLE
    rows = folder / "tasks" / "test.jsonl"
    rows.write_text(rows.read_text().replace("fog", "smog"))
    assert {key for key, digest in content().items() if digest != before[key]} == {"evaluation.tasks.0"}
    rows.unlink()
    assert content()["evaluation.tasks.0"] == UNUSABLE
    write_task(folder / "tasks")
    assert content() == before
    path.write_text(path.read_text() + "few_shot_seed: 1\n")
    assert content()["evaluation.tasks.0"] != before["evaluation.tasks.0"]


def test_the_digest_is_of_configuration_and_content(folder: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path)
    content = content_of(config, config_dir=folder)
    digest = experiment_digest(config, content)
    assert experiment_digest(config, dict(reversed(content.items()))) == digest
    assert experiment_digest(config, content | {"data.dev.path": "0" * 64}) != digest
    assert experiment_digest(experiment(tmp_path, seed=7), content) != digest


def test_a_file_that_changes_during_a_run_is_named(folder: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path)
    before = content_of(config, config_dir=folder)
    require_unchanged(config, config_dir=folder, since=before)
    (folder / "test.jsonl").write_text("more")
    (folder / "dev.jsonl").write_text("more")
    with pytest.raises(
        ConfigError, match=r"^data\.dev\.path, data\.test\.path: changed while the experiment was running"
    ):
        require_unchanged(config, config_dir=folder, since=before)


@pytest.mark.parametrize("name", ["nul\0byte", "x" * 5000])
def test_names_that_no_disk_can_hold_break_what_rests_on_them(name: str, folder: Path, tmp_path: Path) -> None:
    """Whoever can write a report can seal any name in it."""
    rests_on = RestsOn({}, {}, {name: "0" * 64}, (), ())
    config = experiment(tmp_path)
    found = what_broke(rests_on, config=config, run_dir=tmp_path, artifacts=Artifacts(tmp_path / "run_root"))
    assert found is not None and "\n" not in found


def test_a_model_without_weights_is_what_else_is_there(tmp_path: Path) -> None:
    """Of a teacher that is served elsewhere: its tokenizer counts, and it is no model with weights."""
    folder = write_model(tmp_path / "model", value=1.0)
    whole = model_digest(folder, models_root=tmp_path / "models")
    (folder / "model.safetensors").unlink()
    bare = model_digest(folder, models_root=tmp_path / "models")
    assert bare not in (whole, UNUSABLE)
    (folder / "tokenizer.json").write_text('{"vocab": {"a": 0}}')
    assert model_digest(folder, models_root=tmp_path / "models") != bare
