"""A model inside an installed package: what is missing is named, and what is there is unpacked once."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from configs import ModelError
from configs.models import ModelSource
from orchestration.inputs import package_models
from orchestration.inputs.models import locate_model, materialise
from orchestration.inputs.package_models import model_in_package


@pytest.mark.parametrize("package", ["no_such_package", "no_such.package", "json.tool", "..", "sys"])
def test_a_package_that_is_not_there_is_one_line(package: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not installed: install it, or name the model with path or hub") as refused:
        materialise(ModelSource(package=package, file="model.gguf"), models_root=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_file_that_a_package_lacks_names_those_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    (tmp_path / "packed" / "other.gguf").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModelError, match=r"package packed holds no file model\.gguf; GGUF files there: other\.gguf"):
        materialise(ModelSource(package="packed", file="model.gguf"), models_root=tmp_path)


def test_it_is_unpacked_once_into_a_directory_named_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    (tmp_path / "packed" / "small.gguf").write_bytes(b"weights")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    converted: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(package_models, "_convert", convert)
    for _ in range(2):
        directory = model_in_package("packed", "small.gguf", models_root=tmp_path / "models")
        assert directory == tmp_path / "models" / f"small-{hashlib.sha256(b'weights').hexdigest()[:12]}"
        assert (directory / "config.json").read_text() == "{}"
    assert converted == [tmp_path / "packed" / "small.gguf"]


def test_a_folder_with_a_config_is_used_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "carrier" / "model").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").write_text("raise RuntimeError('nothing of a package is run')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModelError, match=r"package carrier: its folder model holds no config\.json: name the folder"):
        model_in_package("carrier", "model", models_root=tmp_path / "models")
    (tmp_path / "carrier" / "model" / "config.json").write_text("{}")
    (tmp_path / "carrier" / "model" / "model.safetensors").touch()
    source = ModelSource(package="carrier", file="model")
    assert locate_model(source, models_root=tmp_path / "models") == tmp_path / "carrier" / "model"
    assert not (tmp_path / "models").exists()
