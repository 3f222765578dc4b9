"""A student as a chain of digests, and what has to be said of a stage that is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import namespace

from configs.models import ModelShape
from configs.places import CURVES
from configs.stages import StageConfig
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.chain import Student, chain, stage_notes
from orchestration.pipeline.starts import Start

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=16)


GOLDEN = [
    "ef42486be2f5ddec25eec58e03f23172f9f79cfcecc3f47a1771b70d73180282",
    "5bda64be5c5f30a9479353f2c6231f351440f4bfdaac6be3afefac3e14e88e64",
]
"""Were they others, every student that anybody has trained would be trained again."""


def stage(objective: str = "kd", **settings: Any) -> StageConfig:
    return StageConfig.model_validate({"objective": objective, "steps": 4, "dtype": "float32", **settings})


def student(
    root: Path, *stages: StageConfig, rows: int = 300, start: str = "start", view: str = "v", **named: Any
) -> Student:
    learned = dict.fromkeys(("teacher-train", "teacher-dev"), view) | named.get("turns", {})
    return chain(
        "s",
        stages=stages or (stage("seqkd"), stage("kd")),
        plain=named.get("plain") or [None] * len(stages or (1, 2)),
        start=Start(start, root / "start", SHAPE.model_copy(update={"vocab": rows}), "a start"),
        learned=learned,
        vocab=261,
        artifacts=Artifacts(root),
        taught=named.get("taught"),
    )


def test_each_stage_starts_where_the_one_before_ended(tmp_path: Path) -> None:
    made = student(tmp_path)
    first, second = made.links
    assert first.start_dir == tmp_path / "start"
    assert second.start_dir == first.output_dir == tmp_path / "students" / first.digest[:16]
    assert first.work_dir == tmp_path / "work" / first.digest[:16]
    assert (first.origin, second.origin) == ("a start", "a start; then seqkd for 4 steps")
    assert (made.digest, made.directory) == (second.digest, second.output_dir)


def test_a_student_has_the_dtypes_of_its_first_and_last_stage(tmp_path: Path) -> None:
    made = student(tmp_path, stage("seqkd", dtype="bfloat16"), stage("kd"))
    assert (made.start_dtype, made.dtype) == ("bfloat16", "float32")


def test_the_digest_is_of_what_changes_the_numbers(tmp_path: Path) -> None:
    one = student(tmp_path)
    assert student(tmp_path / "elsewhere").digest == one.digest
    text: Any = namespace(digest="t")
    others = [
        student(tmp_path, start="another"),
        student(tmp_path, view="w"),
        student(tmp_path, stage("seqkd", steps=5), stage("kd")),
        # Rows of the matrix that are not tokens are part of a student.
        student(tmp_path, rows=261),
        student(tmp_path, plain=[text, None]),
    ]
    assert len({one.digest, *(each.digest for each in others)}) == 6


def test_a_teacher_beside_a_stage_is_part_of_the_student(tmp_path: Path) -> None:
    def taught(identity: str, *stages: StageConfig) -> Student:
        found: Any = namespace(identity=identity)
        return student(tmp_path, *stages, taught=found)

    live = stage("kd", teacher="live")
    one, other = taught("one", stage("seqkd"), live), taught("other", stage("seqkd"), live)
    assert one.links[0].digest == other.links[0].digest and one.digest != other.digest
    assert one.links[0].taught is None and one.links[1].taught is not None
    assert taught("one", stage("seqkd"), stage("kd")).digest == student(tmp_path).digest


def test_a_change_of_the_last_stage_keeps_those_before(tmp_path: Path) -> None:
    one, other = student(tmp_path), student(tmp_path, stage("seqkd"), stage("kd", learning_rate=1e-5))
    assert one.links[0].digest == other.links[0].digest
    assert one.links[1].digest != other.links[1].digest


def test_the_digests_are_those_of_earlier_releases(tmp_path: Path) -> None:
    assert [link.digest for link in student(tmp_path).links] == GOLDEN


def finish(made: Student, root: Path, number: int, *losses: float, step: int) -> None:
    """Leave what a trained stage leaves."""
    link = made.links[number]
    link.output_dir.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (link.output_dir / name).write_text(name)
    rows = [json.dumps({"step": at, "values": {"dev/loss": loss}}) for at, loss in enumerate(losses)]
    (link.output_dir / CURVES).write_text("".join(row + "\n" for row in rows))
    Artifacts(root).keep_student(link.digest, {"selected_step": step})


def notes(made: Student, root: Path) -> list[str]:
    return [note for link in made.links for note in stage_notes(made, link, artifacts=Artifacts(root))]


def test_a_stage_that_is_not_finished_has_no_chosen_step_and_needs_no_note(tmp_path: Path) -> None:
    made = student(tmp_path)
    assert notes(made, tmp_path) == []


def test_a_stage_that_made_its_student_better_needs_no_note(tmp_path: Path) -> None:
    made = student(tmp_path)
    finish(made, tmp_path, 0, 2.0, 1.0, step=1)
    assert notes(made, tmp_path) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_stage_that_made_its_student_worse_is_named(number: int, tmp_path: Path) -> None:
    made = student(tmp_path)
    finish(made, tmp_path, number, 0.43, 0.5, step=1)
    assert notes(made, tmp_path) == [
        f"students.s.stages.{number} ({('seqkd', 'kd')[number]}) made the student worse: dev/loss 0.4300 -> 0.5000 at "
        "step 1; set keep_start: true, a lower learning_rate, or leave the stage out"
    ]


def test_a_stage_that_gave_back_its_start_says_so(tmp_path: Path) -> None:
    made = student(tmp_path)
    finish(made, tmp_path, 0, 0.43, 0.5, step=0)
    assert notes(made, tmp_path) == [
        "students.s.stages.0 (seqkd): no step was better than the start, which is kept (keep_start: true); set a lower "
        "learning_rate, or leave the stage out"
    ]


def test_which_answers_take_turns_addresses_a_student(tmp_path: Path) -> None:
    turning = stage("kd", views=2)
    digests = [student(tmp_path, turning, turns={"teacher-train-2-views": each}).digest for each in "ab"]
    assert len({*digests, student(tmp_path, stage("kd")).digest}) == 3
