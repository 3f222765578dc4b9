from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from configs import ConfigError
from configs.architecture import TextModel
from configs.task_experiment import TaskDistillConfig
from configs.task_features import InsideSizes
from configs.task_stages import TaskStageConfig
from orchestration.plan.task_features import inside_of_start, state_names, wanted_states

TEACHER = TextModel(layers=6, hidden=8, mlp=16, positions=64, labels=("a", "b"), heads=2, vocab=30)

PATIENT = {"kind": "patient", "layers": [[1, 2], [2, 4]]}

LIVE = {"kind": "hidden_mse"}


def config(students: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]) -> TaskDistillConfig:
    """Students by name: how they start, and the features of their one stage."""
    made = {
        name: {"start": start, "stages": [{"objective": "logit_mse", "steps": 1, "features": features}]}
        for name, (start, features) in students.items()
    }
    return TaskDistillConfig.model_validate(
        {"name": "x", "task": "t.yaml", "teacher": {"model": {"path": "t"}}, "students": made}
    )


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({"kind": "transformer", "keep_layers": 2}, InsideSizes((8, 8, 8), 2)),
        ({"kind": "transformer", "keep_layers": (0, 3, 5), "hidden_size": 4}, InsideSizes((4,) * 4, 2)),
        ({"kind": "transformer", "attention_heads": 1}, InsideSizes((8,) * 7, 1)),
        (
            {"kind": "transformer", "shape": {"layers": 1, "hidden": 6, "heads": 3, "mlp": 12}},
            InsideSizes((6, 6), 3),
        ),
        ({"kind": "transformer", "model": {"path": "elsewhere"}}, None),
        ({"kind": "recurrent", "hidden": 5}, InsideSizes((8, 10), None)),
        ({"kind": "bag", "embedding_size": 3}, InsideSizes((3, 3), None)),
        ({"kind": "bag", "hidden": 7}, InsideSizes((8, 7), None)),
    ],
)
def test_the_inside_of_a_student_is_known_from_its_start(start: dict[str, Any], expected: InsideSizes | None) -> None:
    student = config({"small": (start, [])}).students["small"]
    assert inside_of_start(student.start, teacher=TEACHER, own=None) == expected


def test_layers_of_a_model_of_its_own_have_the_sizes_of_that_model() -> None:
    start = {"kind": "transformer", "model": {"path": "elsewhere"}, "keep_layers": 2}
    student = config({"small": (start, [])}).students["small"]
    own = replace(TEACHER, hidden=10, heads=5)
    assert inside_of_start(student.start, teacher=TEACHER, own=own) == InsideSizes((10, 10, 10), 5)


def test_states_are_asked_for_once_and_only_those_that_are_kept() -> None:
    kept = {"kind": "transformer", "keep_layers": 3}
    found = config(
        {
            "one": (kept, [PATIENT, LIVE]),
            "other": ({"kind": "bag"}, [{"kind": "hidden_mse", "layers": "top", "place": "mean"}]),
            "third": (kept, [PATIENT, {"kind": "cosine", "place": "first"}]),
        }
    )
    assert wanted_states(found, teacher=TEACHER, models={}) == (
        (2, "first"), (4, "first"), (6, "mean"), (6, "first"),
    )  # fmt: skip


def test_a_stage_needs_the_states_of_its_own_terms() -> None:
    stage = TaskStageConfig.model_validate({"objective": "hard_labels", "steps": 1, "features": [LIVE, PATIENT]})
    sizes = InsideSizes((8,) * 4, 2)
    assert state_names(stage, student=sizes, teacher=TEACHER.inside) == ((2, "first"), (4, "first"))


def test_what_cannot_be_matched_names_its_key() -> None:
    wrong = config(
        {"small": ({"kind": "transformer", "keep_layers": 2}, [LIVE, {"kind": "patient", "layers": [[3, 1]]}])}
    )
    with pytest.raises(ConfigError, match=r"^students\.small\.stages\.0\.features\.1: layers matches layer 3"):
        wanted_states(wrong, teacher=TEACHER, models={})
    unknown = config({"small": ({"kind": "transformer", "model": {"path": "elsewhere"}}, [PATIENT])})
    assert wanted_states(unknown, teacher=TEACHER, models={}) == ()
    assert wanted_states(unknown, teacher=TEACHER, models={"small": TEACHER}) == ((2, "first"), (4, "first"))
