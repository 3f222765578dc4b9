"""The bill of a student names what it came of, is valid by the library's own schema, and is one line without the library."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from descended import Descent, descended

from cache.fingerprint import fingerprint_model
from configs import ConfigError
from orchestration.commands.main import main
from orchestration.lineage.bom import write_bom


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Descent:
    return descended(tmp_path_factory.mktemp("descended"))


@pytest.fixture(scope="module")
def bill(made: Descent, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("cyclonedx")
    path = tmp_path_factory.mktemp("bill") / "new" / "student.cdx.json"
    write_bom(made.student, path)
    return json.loads(path.read_text())


def properties(component: Any) -> dict[str, str]:
    return {each["name"].removeprefix("stillroom:"): each["value"] for each in component.get("properties", [])}


def by_ref(bill: Any) -> dict[str, Any]:
    return {each["bom-ref"]: each for each in (bill["metadata"]["component"], *bill["components"])}


def test_the_schema_holds_it_to_every_word(bill: Any) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    strict = JsonStrictValidator(SchemaVersion.V1_6)
    assert strict.validate_str(json.dumps(bill)) is None
    assert strict.validate_str(json.dumps({**bill, "surprise": 1})) is not None, "the validator sees what is wrong"


def test_the_student_is_its_files_and_began_as_the_stage_before(bill: Any, made: Descent) -> None:
    student = bill["metadata"]["component"]
    assert student["type"] == "machine-learning-model" and student["name"] == made.student.name
    weights = next(each for each in student["components"] if each["name"] == "model.safetensors")
    digest = hashlib.sha256((made.student / "model.safetensors").read_bytes()).hexdigest()
    assert weights["hashes"] == [{"alg": "SHA-256", "content": digest}]
    names = {each["name"] for each in bill["components"]}
    assert {made.before.name, made.start.name} <= names
    depends = {each["ref"]: set(each.get("dependsOn", ())) for each in bill["dependencies"]}
    refs = {each["name"]: ref for ref, each in by_ref(bill).items()}
    assert refs[made.before.name] in depends[student["bom-ref"]]
    assert refs[made.start.name] in depends[refs[made.before.name]]
    assert {"teacher:teacher", "code:stillroom"} <= depends[student["bom-ref"]]


def test_the_teacher_has_its_licence_its_duties_and_its_weights(bill: Any, made: Descent) -> None:
    teacher = by_ref(bill)["teacher:teacher"]
    assert "llama-3.3" in json.dumps(teacher["licenses"]).lower()
    said = properties(teacher)
    assert said["role"] == "taught" and "Built with Llama" in json.dumps(teacher)
    assert said["weights-sha256"] == fingerprint_model(made.teacher).weights_sha256


def test_data_code_and_libraries_are_there(bill: Any, made: Descent) -> None:
    found = by_ref(bill)
    data = found["data:data.train.path"]
    assert data["type"] == "data" and len(data["hashes"][0]["content"]) == 64
    train = made.experiment.config().data.train
    assert train is not None and train.path is not None
    rows = (made.experiment.folder / train.path).read_bytes()
    assert data["hashes"][0]["content"] == hashlib.sha256(rows).hexdigest()
    assert len(properties(found["learned:views/train.npz"])["digest"]) == 64
    assert found["code:torch"]["purl"].startswith("pkg:pypi/torch@")
    assert found["code:stillroom"]["type"] == "application"


def test_the_same_student_has_the_same_bill_but_for_its_time(bill: Any, made: Descent, tmp_path: Path) -> None:
    write_bom(made.student, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    for each in (again, dict(bill)):
        each["metadata"] = {**each["metadata"], "timestamp": ""}
    assert again["serialNumber"] == bill["serialNumber"] and again["components"] == bill["components"]


def test_a_student_that_was_copied_elsewhere_has_a_bill_of_what_is_there(made: Descent, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx")
    import shutil

    copied = tmp_path / "elsewhere/students" / made.student.name
    shutil.copytree(made.student, copied)
    write_bom(copied, tmp_path / "bill.json")
    bill = json.loads((tmp_path / "bill.json").read_text())
    refs = by_ref(bill)
    assert "teacher:teacher" in refs and not any(ref.startswith("data:") for ref in refs)
    assert "weights-sha256" not in properties(refs["teacher:teacher"])


def test_the_command_writes_it_beside_its_steps(
    made: Descent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cyclonedx")
    assert main(["lineage", str(made.student), "--cyclonedx", str(tmp_path / "b.json")]) == 0
    assert "of materials written to" in capsys.readouterr().out and (tmp_path / "b.json").is_file()


def test_a_copy_that_is_given_away_has_its_bill(
    made: Descent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cyclonedx")
    command = ["export", "--model", str(made.student), "--cyclonedx", str(tmp_path / "b.json")]
    assert main(command) != 0 and "name the copy with --to as well" in capsys.readouterr().err
    (made.student / "licences/teacher/LICENSE").write_text("the licence")
    (made.student / "licences/teacher/USE_POLICY.md").write_text("the policy")
    assert main([*command, "--to", str(tmp_path / "Llama-small")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["metadata"]["component"]["name"] == made.student.name


def test_without_the_library_it_is_one_line_with_the_cure(
    made: Descent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cyclonedx"] + ["cyclonedx"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r'install "stillroom\[bom\]", or leave out --cyclonedx'):
        write_bom(made.student, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
