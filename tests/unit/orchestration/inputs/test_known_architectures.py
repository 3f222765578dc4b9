"""What a config.json means is asked of transformers once, and again when the file or transformers is another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.architecture import read_architecture
from configs.model_files import CONFIG
from orchestration.inputs import known_architectures
from orchestration.inputs.known_architectures import KnownArchitectures

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 24, "vocab_size": 50}


def write(folder: Path, **keys: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | SIZES | keys)
    )
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that transformers was asked about."""
    noted: list[Path] = []

    def noting(model_dir: Path) -> object:
        noted.append(model_dir)
        return read_architecture(model_dir)

    monkeypatch.setattr(known_architectures, "read_architecture", noting)
    return noted


def test_the_second_time_nobody_is_asked(tmp_path: Path, asked: list[Path]) -> None:
    model = write(tmp_path / "model", layer_types=["full_attention"] * 3)
    known = KnownArchitectures(tmp_path / "root" / "memo.json")
    first = known.of(model)
    assert first == read_architecture(model)
    assert KnownArchitectures(known.memo).of(model) == first and asked == [model]
    # A copy elsewhere holds the same bytes.
    assert known.of(write(tmp_path / "copy", layer_types=["full_attention"] * 3)) == first and asked == [model]


def test_another_file_is_read_and_both_are_known_then(tmp_path: Path, asked: list[Path]) -> None:
    known, model = KnownArchitectures(tmp_path / "memo.json"), tmp_path / "model"
    known.of(write(model))
    assert known.of(write(model, num_hidden_layers=4)).shape.layers == 4
    assert known.of(write(model)).shape.layers == 3 and len(asked) == 2


def test_another_transformers_is_asked_anew(tmp_path: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    known, model = KnownArchitectures(tmp_path / "memo.json"), write(tmp_path / "model")
    known.of(model)
    monkeypatch.setattr(known_architectures, "version", lambda name: "99.0")
    known.of(model)
    assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"format": "older", "files": {}}', '{"format": "FORMAT", "files": 3}'])
def test_a_memo_that_is_none_is_written_anew(tmp_path: Path, asked: list[Path], content: str) -> None:
    known, model = KnownArchitectures(tmp_path / "memo.json"), write(tmp_path / "model")
    known.memo.write_text(content.replace("FORMAT", known_architectures.FORMAT))
    assert known.of(model) == known.of(model) and len(asked) == 1


def test_an_entry_that_is_no_architecture_is_not_believed(tmp_path: Path, asked: list[Path]) -> None:
    known, model = KnownArchitectures(tmp_path / "memo.json"), write(tmp_path / "model")
    found = known.of(model)
    held = json.loads(known.memo.read_text())
    (key,) = held["files"]
    held["files"][key]["shape"]["layers"] = "many"
    known.memo.write_text(json.dumps(held))
    assert known.of(model) == found and len(asked) == 2


def test_where_nothing_can_be_written_it_is_read_each_time(tmp_path: Path, asked: list[Path]) -> None:
    known, model = KnownArchitectures(Path("/proc/nothing/memo.json")), write(tmp_path / "model")
    assert known.of(model) == known.of(model) and len(asked) == 2


def test_a_file_that_sends_elsewhere_is_not_remembered(tmp_path: Path, asked: list[Path]) -> None:
    known = KnownArchitectures(tmp_path / "memo.json")
    known.of(write(tmp_path / "model", configuration_files=["config.json"]))
    assert (not known.memo.exists() and not asked) or asked == [tmp_path / "model"]


def test_of_many_the_last_are_kept(tmp_path: Path, asked: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_architectures, "MOST", 2)
    known = KnownArchitectures(tmp_path / "memo.json")
    models = [write(tmp_path / str(layers), num_hidden_layers=layers) for layers in (1, 2, 3)]
    for model in (*models, models[2], models[1], models[0]):
        known.of(model)
    assert asked == [*models, models[0]]
