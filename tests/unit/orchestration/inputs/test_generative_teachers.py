"""A language model as a task's teacher: who it is, and what is refused in one line before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_builders import task_of
from task_files import SHAPE, tiny_model
from task_heads import save_classifier
from transformers import BertConfig, BertForMaskedLM

from configs import ConfigError, ModelError
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.generative_teachers import (
    generative_provenance,
    open_generative_teacher,
    require_askable,
)

MOODS = task_of("classification", labels={"good": "sun", "bad": "rain", "odd": "fog"})


def config(root: Path, *, model: Any = None, longest: int = 128, **teacher: Any) -> TaskDistillConfig:
    stage = {"objective": "hard_labels", "labels": "teacher", "steps": 1}
    places = {key: str(root / key) for key in ("cache_root", "run_root", "models_root")}
    return TaskDistillConfig.model_validate(
        {
            "name": "t",
            "task": "t.yaml",
            "teacher": {"model": model or {"random": SHAPE.model_dump()}, "answers": "text", **teacher},
            "students": {"s": {"start": {"kind": "bag"}, "stages": [stage]}},
            "runtime": places | {"teacher_engine": {"max_model_len": longest}},
        }
    )


def test_a_teacher_is_who_its_weights_and_its_dtype_say(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    half = open_generative_teacher(
        config(tmp_path, dtype="bfloat16"), MOODS, progress=lambda done, total: told.append((done, total))
    )
    assert half.files.shape.parameters == SHAPE.parameters and half.identity.dtype == "bfloat16" and told
    assert open_generative_teacher(config(tmp_path), MOODS).identity.digest() != half.identity.digest()
    assert generative_provenance(config(tmp_path), half).keys() == {
        "model", "tokenizer", "dataset", "vllm", "stillroom",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "teacher", "refused"),
    [
        (task_of("tagging", labels=["LOC"], template="{{ tokens }}"), {"answers": "labels"}, "labels gives the class"),
        (task_of("generation"), {}, "kind=generation is answered by text, and students with a head do"),
        (task_of("classification", labels=["a", "b"], template="Which?"), {}, "reads no field of a row"),
        (task_of("classification", labels=["a", "b"], template="{{ labels }}"), {}, "reads no field of a row"),
        (
            task_of("classification", labels=["sun", "rain", "fog"], template="{{ text }}: sun or rain?"),
            {},
            r"names sun, rain and not label fog \('fog'\): name all of them",
        ),
        (task_of("classification", labels=["a", "b"], max_new_tokens=128), {}, "max_new_tokens=128 of task t leaves"),
        (
            task_of("classification", labels=["a", "b"], template="{{ place.name }}"),
            {"answers": "labels", "calibrated": True},
            "calibrated=true needs questions without content, .*: set calibrated: false",
        ),
    ],
)
def test_tasks_that_it_cannot_be_asked_about_are_refused(
    task: TaskConfig, teacher: dict[str, Any], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=refused) as error:
        require_askable(config(tmp_path, **teacher), task)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("template", ["{{ text }}: sun, rain or fog?", "{{ text }} in the sun?", "{{ text }}"])
def test_a_template_may_name_all_labels_or_none(template: str, tmp_path: Path) -> None:
    require_askable(config(tmp_path), task_of("classification", labels=["sun", "rain", "fog"], template=template))


def test_models_that_write_nothing_are_refused_by_their_configuration(tmp_path: Path) -> None:
    head = config(tmp_path, model={"path": str(save_classifier(tmp_path / "head"))})
    with pytest.raises(ModelError, match=r"has a head for classification and writes no text, .*: set answers: head"):
        open_generative_teacher(head, MOODS)
    BertForMaskedLM(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="is an encoder and writes no text"):
        open_generative_teacher(config(tmp_path, model={"path": str(tmp_path / "bert")}), MOODS)


def test_an_engine_may_not_read_more_than_the_model(tmp_path: Path) -> None:
    tiny_model(tmp_path / "models_root")
    with pytest.raises(ConfigError, match=r"runtime\.teacher_engine\.max_model_len=512 is more than the 256 positions"):
        open_generative_teacher(config(tmp_path, longest=512), MOODS)
