"""Lessons of general stages: windows of plain text beside texts of the task, each file once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from general_jobs import save_encoder
from task_pipeline_builders import task_place
from transformers import AutoTokenizer

from configs.task_stages import TaskStageConfig
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.general_texts import PlainTexts
from orchestration.inputs.task_sets import load_learned_task
from orchestration.pipeline.tasks.general_lessons import GeneralLessons
from orchestration.pipeline.tasks.lessons import Reader
from student_train.feed.examples import ExampleSet


def stage(*data: str) -> TaskStageConfig:
    values: dict[str, Any] = {"objective": "masked_lm", "data": list(data), "steps": 2}
    return TaskStageConfig.model_validate(values)


def test_plain_text_is_cut_into_windows_and_other_sets_as_everywhere(tmp_path: Path) -> None:
    task_place(tmp_path)
    task = load_learned_task(tmp_path / "moods.yaml")
    texts = PlainTexts(("w1 w2 w3 w4 w5 w6", "w7"), ("w8 w9",), ())
    lessons = GeneralLessons(texts, TaskSets({"train": task.train}, ()), task.config, tmp_path / "lessons")
    reader = Reader(AutoTokenizer.from_pretrained(save_encoder(tmp_path / "encoder")), "words", 5)
    lesson = lessons.of(stage("plain", "train"), reader)
    # No word of the task is in the vocabulary: nothing of it could be hidden.
    assert lesson.counts == {"plain": 3, "train": 6} and lesson.rows == 3
    assert lesson.notes == ("plain-train: 6 texts are left out that have no token which could be hidden",)
    assert ExampleSet.load(lesson.train).digest == lesson.train_digest
    assert ExampleSet.load(lesson.dev).lengths.tolist() == [4]
    assert lessons.of(stage("plain", "train"), reader) is lesson
    assert lessons.of(stage("plain"), reader).train_digest == lesson.train_digest
