"""Where else a text lies, whatever the form of the file; weights and vocabularies are not read; and taking it out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from configs import CacheError
from orchestration.cache_tools import searched_files
from orchestration.cache_tools.searched_files import files_with, take_out, why_kept
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
    monkeypatch.setattr(searched_files, "LARGEST_FILE", 50)
    assert files_with(NAME, root=tmp_path) == []


def test_of_a_file_of_lines_those_that_hold_it_go_and_of_another_all(tmp_path: Path) -> None:
    rows = put(tmp_path / "rejected.jsonl", "not JSON\n" + json.dumps({"a": "Zoë"}) + '\n{"a": "Zoe"}\n')
    page = put(tmp_path / "report.html", "Zoë and others")
    for path in (rows, page):
        take_out(path, NAME)
    assert rows.read_text() == 'not JSON\n{"a": "Zoe"}\n' and not page.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejected.jsonl"]
    take_out(page, NAME)  # it went away while we looked


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(CacheError, match="holds the text and cannot be changed"):
        take_out(tmp_path / "rows.jsonl", NAME)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mlflow.db", "a database"),
        ("students/abc/README.md", "part of a model"),
        ("run-1/config.yaml", "the configuration itself"),
        ("run-1/resolved.yaml", "the configuration itself"),
        ("run-1/report.html", None),
        ("mlartifacts/1/table.json", None),
    ],
)
def test_what_cannot_go_without_harm_stays_with_its_reason(name: str, reason: str | None, tmp_path: Path) -> None:
    found = why_kept(tmp_path / name, root=tmp_path)
    assert found is reason or (found is not None and reason is not None and found.startswith(reason))
