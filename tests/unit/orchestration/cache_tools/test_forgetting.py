"""What a task's teacher was told is forgotten, however it answers; and where else a text lies: in files of runs,
whatever their form; weights and vocabularies are not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pipeline_builders import SHAPE, fake_run, go
from task_heads import save_classifier
from task_pipeline_builders import STAGE, TaskPlace, spoken_place, task_place

from orchestration.cache_tools import searched_files
from orchestration.cache_tools.forgetting import Forgotten, forget_text
from orchestration.cache_tools.searched_files import files_with
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


def forgotten(place: TaskPlace, text: str, *, remove: bool = False) -> Forgotten:
    return forget_text(place.config, config_dir=place.root, pattern=TextPattern(text), remove=remove, break_pins=remove)


def asked_again(place: TaskPlace) -> str:
    """What the engines are told to fill in another run over the same texts."""
    place.called.clear()
    place.go("fill")
    return " ".join(line for line in place.called if line.startswith("fill"))


def test_signals_of_texts_are_forgotten_and_no_others(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("fill")
    found = forgotten(place, "oslo")
    assert len(found.sequences) == 3 and not found.removed
    assert forgotten(place, "oslo", remove=True).sequences == found.sequences
    assert forgotten(place, "oslo").sequences == ()
    assert asked_again(place) == "fill 3"


@pytest.mark.parametrize(("answers", "rows"), [("labels", 6), ("text", 3)])
def test_answers_of_a_language_model_are_forgotten_with_their_questions(
    answers: str, rows: int, tmp_path: Path
) -> None:
    place = spoken_place(tmp_path, answers=answers, stage={"objective": "hard_labels", "labels": "teacher"})
    place.go("fill")
    assert len(forgotten(place, "oslo", remove=True).sequences) == rows
    assert asked_again(place) == f"fill {rows}"
    if answers == "text":
        assert forgotten(place, "clearly").sequences, "what it wrote is searched, not the question alone"


def test_every_tuning_of_a_teacher_is_searched_and_strangers_are_named(tmp_path: Path) -> None:
    stage = {key: value for key, value in STAGE.items() if key != "data"} | {"objective": "hard_labels"}
    place = task_place(tmp_path)
    place.values["teacher"]["prepare"] = [stage]
    place.go("fill")
    place.values["teacher"]["prepare"] = [stage, stage]
    place.go("fill")
    # The rows that the tuning was made of may be gone: they are what is to be forgotten.
    (tmp_path / "train.jsonl").write_text("")
    found = forgotten(place, "oslo", remove=True)
    assert len(found.sequences) == 6 and len(found.searched) == 3 and found.unsearched == ()
    del place.values["teacher"]["prepare"]
    untuned = forgotten(place, "rain")
    assert untuned.sequences == () and len(untuned.unsearched) == 2


def test_every_teacher_of_a_config_is_searched_once_it_was_asked(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("fill")
    save_classifier(tmp_path / "other", labels=("bad", "good"))
    place.values["teachers"] = {"other": {"model": {"path": str(tmp_path / "other")}, "max_tokens": 16}}
    assert len(forgotten(place, "oslo").searched) == 1
    place.go("fill")
    found = forgotten(place, "oslo", remove=True)
    assert len(found.searched) == 2 and found.unsearched == ()
    assert len(found.sequences) == 2 * 3
    assert asked_again(place) == "fill 3 fill 3"


def test_every_teacher_of_a_language_model_is_searched_once_it_was_asked(tmp_path: Path) -> None:
    model = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    go(fake_run(tmp_path), until="fill")
    run = fake_run(tmp_path, teachers={"second": model})

    def found() -> Forgotten:
        pattern = TextPattern("train 0")
        return forget_text(run.config, config_dir=tmp_path, pattern=pattern, remove=False, break_pins=False)

    assert len(found().searched) == 1
    go(run, until="fill")
    both = found()
    assert len(both.searched) == 2 and both.unsearched == () and len(both.sequences) == 2
