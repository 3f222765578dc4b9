"""Where else a text lies: in files of runs, whatever their form; weights and vocabularies are not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestration.cache_tools import forgetting
from orchestration.cache_tools.forgetting import files_with
from orchestration.cache_tools.text_patterns import TextPattern

NAME = TextPattern("Zoë")


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_is_found_as_it_stands_and_as_json_writes_it(tmp_path: Path) -> None:
    found = [
        put(tmp_path / "a/report.md", "said Zoë"),
        put(tmp_path / "b/report.json", json.dumps({"answers": [{"text": "Zoë"}]})),
        put(tmp_path / "c/rejected.jsonl", "not JSON\n" + json.dumps({"Zoë": 1}) + "\n"),
        put(tmp_path / "mlartifacts/x", "Zoë"),
    ]
    assert "\\u00eb" in found[1].read_text(), "the text itself does not stand in it"
    put(tmp_path / "d/other.json", json.dumps("Zoe"))
    assert files_with(NAME, root=tmp_path) == found


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "tokenizer.json", "vocab.json", "views/train.npz"])
def test_weights_and_vocabularies_hold_every_common_word(name: str, tmp_path: Path) -> None:
    put(tmp_path / name, "Zoë")
    assert files_with(NAME, root=tmp_path) == []


def test_a_pipe_and_a_giant_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    put(tmp_path / "giant.log", "Zoë" + "x" * 100)
    monkeypatch.setattr(forgetting, "LARGEST_FILE", 50)
    assert files_with(NAME, root=tmp_path) == []
