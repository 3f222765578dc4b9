"""What one teacher said, pinned: a view for each split, and one of its own for a stage with filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_builders import FakePool, fake_run, widened

from cache import CacheView, TeacherRecord
from cache.narrowed import NarrowedView
from configs import CacheError, DataError
from orchestration.pipeline.lessons import Lesson, pin_lesson
from student_train.feed.turns import Turns

STAGE: dict[str, Any] = {"objective": "kd", "steps": 4, "dtype": "float32"}


def students(**filters: Any) -> dict[str, Any]:
    return {"kd": {"init": {"keep_layers": 1}, "stages": [STAGE | {"filters": filters}]}}


def test_every_split_is_pinned_and_written(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    teacher = run.teacher()
    lesson = run.lesson(teacher, run.prompts(teacher))
    assert {name: len(view) for name, view in lesson.views.items()} == {
        "teacher-train": 3, "teacher-dev": 2, "teacher-test": 2,
    }  # fmt: skip
    for name, view in lesson.views.items():
        assert lesson.paths[name] == run.settings.directory / "views" / f"{name}.npz"
        assert CacheView.load(lesson.paths[name]).digest == view.digest
        assert view.k == 4
    assert run.tracker.told == []


def test_a_stage_with_filters_has_a_view_of_its_own_and_what_they_leave_out_is_counted(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(f'{{"prompt": "say {number}"}}\n' for number in range(12)))
    writes = {"temperature": 1.0, "max_new_tokens": 20}
    run = fake_run(tmp_path, students=students(finish="stop", min_tokens=3), generation=writes)
    teacher = run.teacher()
    lesson = run.lesson(teacher, run.prompts(teacher))
    (name,) = set(lesson.views) - {"teacher-train", "teacher-dev", "teacher-test"}
    whole, sifted = lesson.views["teacher-train"], lesson.views[name]
    records = [record for record in lesson.cache.get_many([bytes(key) for key in whole.keys]) if record is not None]
    stay = [record.key for record in records if record.finish == "stop" and record.response_len >= 3]
    assert 0 < len(stay) < 12
    assert [bytes(key) for key in sifted.keys] == stay
    ((_, left_out),) = run.tracker.of("final")
    assert sum(left_out.values()) == 12 - len(stay)
    assert all(reason.startswith(f"filters/{name}/") and " " not in reason for reason in left_out)
    assert f"Filters of {name}: {len(stay)} sequences learned; left out: " in run.said


def test_filters_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path, students=students(min_tokens=50))
    teacher = run.teacher()
    with pytest.raises(DataError, match="filters leave none of the 3 sequences of teacher-train: 0 sequences learned"):
        run.lesson(teacher, run.prompts(teacher))


def test_a_set_of_which_nothing_was_answered_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    asked = run.asked(teacher, prompts)
    (part, *_) = asked.sets
    request = part.requests[0]
    requests: list[Any] = [request]
    ((_, record),) = FakePool(teacher.identity, files=teacher.files).source.generate(requests, k=4)
    pairs: list[Any] = [(record, request)]
    asked.cache.put(pairs, vocab=teacher.files.vocab)
    asked.cache.refresh()
    with pytest.raises(CacheError, match="the teacher answered none of the 2 rows of teacher-dev"):
        pin_lesson(
            asked.sets, journal=run.journal, teacher=teacher, cache=asked.cache, stages=(), prompts={}, folder=tmp_path
        )


def test_answers_to_a_prompt_take_turns_in_the_view_that_all_stages_share(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(f'{{"prompt": "say {at % 5}"}}\n' for at in range(7)))
    stages = [STAGE, STAGE | {"views": 2}, STAGE | {"views": 3}, STAGE | {"views": 2, "filters": {"min_tokens": 14}}]
    run = fake_run(
        tmp_path,
        students={"kd": {"init": {"keep_layers": 1}, "stages": stages}},
        generation={"temperature": 1.0, "max_new_tokens": 20, "samples_per_prompt": 3},
    )
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    lesson = run.lesson(teacher, prompts)
    plain, two, three, sifted = run.config.students["kd"].stages
    assert plain.train_view == two.train_view == three.train_view != sifted.train_view
    assert lesson.turns_of(plain) is None
    (train, *_) = run.asked(teacher, prompts).sets
    answers = dict(zip(train.requests, lesson.cache.lookup(train.requests, k=4), strict=True))
    for stage in (two, three):
        turns, keys = lesson.turns_of(stage), lesson.views[stage.train_view].keys
        assert turns is not None and turns.rows.shape == (stage.views, 5)
        for epoch in range(5):
            read = {bytes(keys[row]) for row in turns.of(epoch)}
            assert read == {key for request, key in answers.items() if request.replicate == epoch % stage.views}
    assert two.turns is not None and sifted.turns is not None
    assert Turns.load(lesson.paths[two.turns]).digest == lesson.digests[two.turns]
    left, kept = lesson.turns[sifted.turns], lesson.views[sifted.train_view]
    by_prompt = {request.prompt_ids for request, key in answers.items() if key in {bytes(key) for key in kept.keys}}
    assert 0 < left.rows.shape[1] == len(by_prompt) and left.rows.max() < len(kept) < 15


def records(lesson: Lesson, views: Mapping[str, CacheView], name: str) -> list[TeacherRecord]:
    (told,) = lesson.reader.iter_blocks(views[name], [np.arange(len(views[name]))])
    return told


def test_what_a_teacher_said_of_more_is_pinned_as_students_read_it(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    teacher = run.teacher()
    prompts = widened(run.prompts(teacher))
    lesson = run.lesson(teacher, prompts)
    for split, rows in prompts.splits.items():
        name = f"teacher-{split}"
        assert lesson.paths[name] == run.settings.directory / "views" / f"{name}.narrowed"
        assert NarrowedView.load(lesson.paths[name]).rows.digest == lesson.digests[name] != lesson.told[name].digest
        read, told = records(lesson, lesson.views, name), records(lesson, lesson.told, name)
        assert [tuple(each.token_ids[: each.prompt_len]) for each in read] == [row.prompt_ids for row in rows]
        assert [tuple(each.token_ids[: each.prompt_len]) for each in told] == [row.wide_ids for row in rows]
        for ours, theirs in zip(read, told, strict=True):
            assert np.array_equal(ours.response_ids, theirs.response_ids)
            assert np.array_equal(ours.topk_logprobs, theirs.topk_logprobs)  # type: ignore[arg-type]


def test_gold_that_filters_hold_answers_against_is_found_by_what_the_teacher_saw(tmp_path: Path) -> None:
    for split, rows in {"train": 3, "dev": 2, "test": 2}.items():
        row = '{{"prompt": "{} {}", "response": "it"}}\n'
        (tmp_path / f"{split}.jsonl").write_text("".join(row.format(split, number) for number in range(rows)))
    data = {**{each: {"path": str(tmp_path / f"{each}.jsonl")} for each in ("train", "dev", "test")}}
    data |= {"max_prompt_tokens": 32, "response_field": "response"}
    run = fake_run(tmp_path, students=students(min_rouge_l=1.0), data=data)
    teacher = run.teacher()
    prompts = widened(run.prompts(teacher))
    requests: list[Any] = list(run.asked(teacher, prompts).sets[0].requests)
    said = dict(FakePool(teacher.identity, files=teacher.files).source.generate(requests, k=4))
    gold = [replace(row, gold_ids=tuple(said[at].response_ids)) for at, row in enumerate(prompts.splits["train"][:2])]
    splits = {**prompts.splits, "train": (*gold, *prompts.splits["train"][2:])}
    lesson = run.lesson(teacher, replace(prompts, splits=splits))
    (name,) = set(lesson.views) - {"teacher-train", "teacher-dev", "teacher-test"}
    read = records(lesson, lesson.views, name)
    assert [tuple(each.token_ids[: each.prompt_len]) for each in read] == [row.prompt_ids for row in gold]


def test_answers_take_turns_whatever_the_teacher_saw(tmp_path: Path) -> None:
    stages = [STAGE | {"views": 2}]
    writes = {"temperature": 1.0, "max_new_tokens": 20, "samples_per_prompt": 2}
    run = fake_run(tmp_path, students={"kd": {"init": {"keep_layers": 1}, "stages": stages}}, generation=writes)
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    lesson = run.lesson(teacher, widened(prompts))
    turns = lesson.turns_of(run.config.students["kd"].stages[0])
    assert turns is not None and turns.rows.shape == (2, 3)
    read = records(lesson, lesson.views, "teacher-train")
    for epoch in range(2):
        asked = [tuple(read[row].token_ids[: read[row].prompt_len]) for row in turns.of(epoch)]
        assert sorted(asked) == sorted(row.prompt_ids for row in prompts.splits["train"])
