from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.task_stages import TaskStageConfig
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.tasks.chain import TaskChain, gold_alone, of_seed, task_chain
from orchestration.pipeline.tasks.lessons import TaskLesson
from orchestration.pipeline.tasks.starts import MadeStart

STAGES = (
    TaskStageConfig(objective="logit_mse", data=("train", "transfer"), epochs=3.0, seed=5),
    TaskStageConfig(objective="soft_labels", temperature=2.0, gold_weight=0.5, steps=4),
)


def lesson(stage: TaskStageConfig, *, content: str = "t") -> TaskLesson:
    digest = content + "-".join(stage.data)
    return TaskLesson(Path("train"), Path("dev"), digest, "dev", 9, dict.fromkeys(stage.data, 9), ())


def chain(root: Path, **changes: Any) -> TaskChain:
    fields: dict[str, Any] = {
        "stages": STAGES,
        "start": MadeStart("s" * 64, root / "inits/s", "a start"),
        "lesson": lesson,
        "kind": "classification",
        "labels": ("a", "b"),
        "artifacts": Artifacts(root),
    }
    return task_chain("student", **fields | changes)


def test_each_stage_begins_where_the_one_before_it_ends(tmp_path: Path) -> None:
    made = chain(tmp_path)
    first, second = made.links
    assert first.start_dir == tmp_path / "inits/s" and second.start_dir == first.output_dir
    assert (made.digest, made.directory) == (second.digest, second.output_dir)
    assert (first.origin, second.origin) == ("a start", "a start; then logit_mse")
    assert made.method == "logit_mse, soft_labels"
    assert first.digest != second.digest and first.work_dir != second.work_dir


def test_what_changes_a_student_changes_its_address(tmp_path: Path) -> None:
    digest = chain(tmp_path).digest
    assert chain(tmp_path).digest == digest
    for changes in (
        {"start": MadeStart("o" * 64, tmp_path, "a start")},
        {"stages": of_seed(STAGES, seed=1)},
        {"labels": ("b", "a")},
        {"kind": "tagging"},
        {"lesson": lambda stage: lesson(stage, content="other")},
    ):
        assert chain(tmp_path, **changes).digest != digest, changes
    assert chain(tmp_path, start=MadeStart("s" * 64, tmp_path / "elsewhere", "other words")).digest == digest


def test_every_training_of_a_student_has_seeds_of_its_own() -> None:
    assert [stage.seed for stage in of_seed(STAGES, seed=2)] == [7, 2]


def test_gold_alone_learns_for_as_many_steps_without_a_teacher() -> None:
    twin = gold_alone(STAGES, steps=(30, 4))
    assert [(stage.objective, stage.needs, stage.data, stage.steps, stage.epochs) for stage in twin] == [
        ("hard_labels", "gold", ("train",), 30, None),
        ("hard_labels", "gold", ("train",), 4, None),
    ]
    assert [stage.learning_rate for stage in twin] == [stage.learning_rate for stage in STAGES]
    for stage in twin:
        TaskStageConfig.model_validate(stage.model_dump())
