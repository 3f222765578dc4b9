"""What of a context a teacher has no room for is said, and refused where nothing of it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from task_heads import save_span_finder
from task_pipeline_builders import TASK
from transformers import AutoTokenizer

from configs import ConfigError
from configs.task_teacher import TaskTeacherConfig
from configs.teacher_context import TeacherContext
from orchestration.inputs.context_room import with_room_noted
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_sets import load_learned_task


def noted(
    root: Path, *, max_tokens: int, name: str = "teacher", answers: str = "head", **wanted: Any
) -> tuple[str, ...]:
    """Notes about three texts in train and one in dev and test each."""
    texts = {"train": ["sun rain", "oslo", "rome sun"], "dev": ["sun"], "test": ["rain"]}
    for split, each in texts.items():
        rows = [{"text": text, "label": "good", "more": "where"} for text in each]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "moods.yaml").write_text(json.dumps(TASK))
    context = TeacherContext.model_validate(wanted) if wanted else None
    task = load_learned_task(root / "moods.yaml", context)
    model: Any = {"path": root}
    teacher = TaskTeacherConfig.model_validate({"model": model, "answers": answers, "max_tokens": max_tokens})
    tokenizer = AutoTokenizer.from_pretrained(save_span_finder(root / "model"))
    sets = TaskSets({"train": task.train}, ("before",))
    return with_room_noted(sets, task, teacher=teacher, tokenizer=tokenizer, name=name).notes


NEIGHBOURS = {"before": 2, "after": 2}


def test_a_context_that_fits_needs_no_word(tmp_path: Path) -> None:
    assert noted(tmp_path, max_tokens=16, neighbours=NEIGHBOURS) == ("before",)
    assert noted(tmp_path, max_tokens=4) == ("before",)
    assert noted(tmp_path, max_tokens=4, answers="labels", neighbours=NEIGHBOURS) == ("before",)


def test_what_is_cut_is_counted_with_the_limit(tmp_path: Path) -> None:
    # sun rain | oslo rome sun: 8 tokens with three special ones; oslo | sun rain rome sun: 8 too.
    _, note = noted(tmp_path, max_tokens=7, neighbours=NEIGHBOURS)
    assert note == ("teacher_context: 3 of 5 texts have some of it cut, 3 tokens in all, to teacher.max_tokens=7")
    _, note = noted(tmp_path, max_tokens=5, neighbours=NEIGHBOURS, name="second")
    assert note == (
        "teacher_context: 3 of 5 texts have some of it cut, 9 tokens in all, to teachers.second.max_tokens=5; "
        "2 of them have no room for any"
    )


def test_no_room_at_all_is_refused_with_both_numbers(tmp_path: Path) -> None:
    said = "teacher.max_tokens=4 leaves no room for teacher_context beside texts of 3 tokens and more: raise it"
    with pytest.raises(ConfigError, match=said):
        noted(tmp_path, max_tokens=4, neighbours=NEIGHBOURS)


def test_a_context_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher_context shows nothing: no row has a neighbour or a passage"):
        noted(tmp_path, max_tokens=16, neighbours={"before": 1, "within": "text"})


def test_surroundings_that_all_fit_are_read_whole(tmp_path: Path) -> None:
    assert noted(tmp_path, max_tokens=16, passage_field="more") == ("before",)
