"""Directories of networks over embeddings: what is refused, and the lines of torch in their README."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from task_students import LABELS, NETWORKS, save_network
from transformers import AutoTokenizer

from configs.errors import ModelError
from student_train.models.task_model import load_task_student, write_task_student


def load(model_dir: Path, **options: Any) -> Any:
    return load_task_student(model_dir, **{"kind": "classification", "labels": LABELS} | options)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["classification", "tagging", "extractive_qa"])
def test_the_readme_runs_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, kind: Any
) -> None:
    if NETWORKS[name]["kind"] == "bag" and kind != "classification":
        pytest.skip("a bag classifies alone")
    labels = ("first", "last") if kind == "extractive_qa" else LABELS
    folder = save_network(tmp_path / "network", name=name, task=kind, labels=labels)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    code = code.replace('"Any text."', '"w3 w7s unheard w1"')
    monkeypatch.chdir(folder)
    values: dict[str, Any] = {}
    exec(code, values)
    read = AutoTokenizer.from_pretrained(folder)("w3 w7s unheard w1", return_tensors="pt", return_token_type_ids=True)
    student = load(folder, kind=kind, labels=labels)
    with torch.no_grad():
        expected = student(read["input_ids"], read["attention_mask"], read["token_type_ids"])
    torch.testing.assert_close(values["logits"].detach(), expected, rtol=0, atol=1e-6)
    said = capsys.readouterr().out
    assert (
        str(expected[0].argmax(0).tolist()) if kind == "extractive_qa" else LABELS[expected[0].argmax(-1).flatten()[0]]
    ) in said


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "stillroom/task-network/2"}, "format=stillroom/task-network/2, and stillroom/task-network/1 is"),
        ({"kind": "quantum"}, "kind=quantum in its config.json is none of recurrent, bag: correct it"),
        ({"kind": "bag"}, r"config.json: (cell|hidden|layers): "),
        ({"hidden": 0}, "hidden: Input should be greater than 0: copy or make it again"),
        ({"hidden": 9}, r"its weights are not those that its config.json asks for \(.*size mismatch.*\): copy or make"),
        ({"layers": 3}, r"its weights are not those that its config.json asks for \(.*Missing key.*\): copy or make"),
        ({"task": "tagging"}, "its head does tagging, not classification: name a model for classification"),
        ({"labels": ["a"]}, "labels: "),
        ({"surprise": 1}, "surprise: "),
    ],
)
def test_what_is_not_such_a_network_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = save_network(tmp_path / "network", name="lstm")
    change_config(folder, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_and_pickles_are_refused(tmp_path: Path) -> None:
    folder = save_network(tmp_path / "network", name="gru")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"more": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="Unexpected key"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="its weights are not those"):
        load(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickles are not read"):
        load(folder)


def test_what_is_written_are_the_bytes_of_the_weights_alone(tmp_path: Path) -> None:
    """Written twice, a network is the same files."""
    folder = save_network(tmp_path / "network", name="lstm")
    student = load(folder)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_task_student(student, dict(student.named_parameters()), start=folder, folder=tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() == (folder / path.name).read_bytes()
