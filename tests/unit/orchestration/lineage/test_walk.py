"""The way back from a student: every changed byte is named by the step that it lies in, and what is gone is not broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from descended import Descent, descended

from configs import ModelError
from configs.places import SUMMARY
from orchestration.lineage.records import LINEAGE, MADE_OF
from orchestration.lineage.steps import Step
from orchestration.lineage.walk import walk
from orchestration.outputs.artifacts import STUDENT
from orchestration.outputs.kept import read_addressed, seal_directory


@pytest.fixture
def made(tmp_path: Path) -> Descent:
    return descended(tmp_path)


def states(steps: list[Step]) -> dict[str, str]:
    """The worst state of each step by its name."""
    order = ("said", "holds", "missing", "broken")
    found: dict[str, str] = {}
    for step in steps:
        found[step.what] = max(found.get(step.what, "said"), step.state, key=order.index)
    return found


def flip(path: Path, *, at: int = -3) -> None:
    """Change one bit and nothing else: neither the size nor the time of the last change that a copy would keep."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_all_of_it_holds_from_the_weights_to_the_teacher(made: Descent) -> None:
    steps = list(walk(made.student))
    assert states(steps) == {
        "files": "holds",
        "address": "holds",
        "licence": "said",
        "made with": "said",
        "start: files": "holds",
        "start: address": "holds",
        "start: licence": "said",
        "start: made with": "said",
        "start: start: files": "holds",
        "start: start: address": "holds",
        "run": "holds",
        "named": "holds",
        "learned": "holds",
        "cache": "holds",
        "teacher": "holds",
    }
    # What stands behind both students is looked at once.
    assert [step.what for step in steps].count("run") == 1
    words = "\n".join(step.says for step in steps)
    assert "a stage kd with seed 7" in words and "a stage seqkd with seed 7" in words
    assert "llama3.3; its name begins with Llama" in words and "torch 2." in words
    assert str(made.teacher) in words


@pytest.mark.parametrize(
    ("where", "step", "said"),
    [
        (lambda made: made.student / "model.safetensors", "files", "was edited or damaged"),
        (lambda made: made.student / "licences/teachers.json", "files", "was edited or damaged"),
        (lambda made: made.before / "model.safetensors", "start: files", "was edited or damaged"),
        (lambda made: made.start / "config.json", "start: start: files", "was edited or damaged"),
        (lambda made: made.experiment.folder / "train.jsonl", "named", "data.train.path does not hold what it held"),
        (lambda made: made.teacher / "model.safetensors", "named", "teacher.model does not hold what it held"),
        (lambda made: made.experiment.folder / "own/tokenizer.json", "named", "students.own.init.model does not hold"),
        (lambda made: made.run / "views/train.npz", "learned", "train.npz"),
        (lambda made: made.shard, "cache", "token_ids/c/0"),
        (lambda made: made.run / "foundation.json", "run", "foundation.json"),
    ],
)
def test_one_flipped_bit_is_named(where: Callable[[Descent], Path], step: str, said: str, made: Descent) -> None:
    flip(where(made))
    broken = [each for each in walk(made.student) if each.state == "broken"]
    assert step in {each.what for each in broken}
    assert any(said in each.says for each in broken if each.what == step)


def test_a_configuration_that_says_something_else_is_not_the_one_that_ran(made: Descent) -> None:
    written = made.run / "config.yaml"
    written.write_text(written.read_text().replace("steps: 1", "steps: 2"))
    assert states(list(walk(made.student)))["run"] == "broken"


def test_the_teacher_that_answered_is_not_another_one_in_its_place(made: Descent) -> None:
    flip(made.teacher / "model.safetensors")
    found = states(list(walk(made.student)))
    assert found["teacher"] == "missing" and found["cache"] == "holds"


def test_a_summary_that_was_changed_is_not_believed(made: Descent) -> None:
    flip(made.student / SUMMARY, at=-30)
    with pytest.raises(ModelError, match="nothing that it says of where it comes from can be believed"):
        list(walk(made.student))


def test_one_that_was_sealed_again_does_not_have_the_address_of_what_it_says(made: Descent) -> None:
    address, fields = read_addressed(made.student / SUMMARY, schema=STUDENT) or ("", {})
    other = {**fields[MADE_OF], "stage": {"objective": "kd", "seed": 8}}  # type: ignore[dict-item]
    fields = {name: value for name, value in fields.items() if name != "files"} | {MADE_OF: other}
    seal_directory(made.student, schema=STUDENT, digest=address, fields=fields)
    assert states(list(walk(made.student)))["address"] == "broken"


def test_rows_that_the_address_does_not_name_are_not_what_was_learned(made: Descent) -> None:
    address, fields = read_addressed(made.student / SUMMARY, schema=STUDENT) or ("", {})
    lineage = json.loads(json.dumps(fields[LINEAGE]))
    lineage["learned"].pop("views/train.npz")
    fields = {name: value for name, value in fields.items() if name != "files"} | {LINEAGE: lineage}
    seal_directory(made.student, schema=STUDENT, digest=address, fields=fields)
    assert states(list(walk(made.student)))["learned"] == "broken"


def test_what_is_gone_is_missing_and_nothing_else(made: Descent) -> None:
    shutil.rmtree(made.run)
    shutil.rmtree(made.start)
    found = states(list(walk(made.student)))
    assert found["run"] == found["start: start"] == "missing"
    assert "broken" not in found.values()


def test_the_start_of_another_student_is_not_its_own(made: Descent) -> None:
    shutil.rmtree(made.before)
    shutil.copytree(made.student, made.before)
    broken = {step.what: step.says for step in walk(made.student) if step.state == "broken"}
    assert "the student began as another one" in broken["start"]


def test_a_copy_finds_its_run_by_the_run_root(made: Descent, tmp_path: Path) -> None:
    copy = shutil.copytree(made.student, tmp_path / "elsewhere" / "mine")
    assert states(list(walk(copy)))["run"] == "missing"
    assert states(list(walk(copy, run_root=made.run.parent)))["teacher"] == "holds"


def test_one_of_an_earlier_version_says_that_nothing_more_is_known(made: Descent) -> None:
    address, _ = read_addressed(made.student / SUMMARY, schema=STUDENT) or ("", {})
    seal_directory(made.student, schema=STUDENT, digest=address, fields={})
    found = states(list(walk(made.student)))
    assert (found["address"], found["lineage"], found["files"]) == ("missing", "missing", "holds")


def test_a_directory_that_is_no_student_is_refused(made: Descent) -> None:
    with pytest.raises(ModelError, match="not a student that was made here"):
        list(walk(made.teacher))
