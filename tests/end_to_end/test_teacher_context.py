"""An experiment whose teacher sees more than its students, from the first question to the comparison and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pipeline_builders import FakeRun, fake_run, go

from cache import CacheView, TeacherRecord
from cache.narrowed import NarrowedView
from cache.opening import open_rows
from orchestration.inputs.teachers import open_cache
from orchestration.outputs.foundations import rested_on, what_broke
from student_train.feed.turns import Turns
from student_train.job import TrainJob

KIND: dict[str, Any] = {"teacher_context": {"system_prompt": "Be kind."}}
STAGE: dict[str, Any] = {"objective": "kd", "steps": 4, "dtype": "float32"}
LEAST = 9
Prompts = set[tuple[int, ...]]


def read_by(job: TrainJob, run: FakeRun) -> list[TeacherRecord]:
    """The rows that a training reads, as its workers open them."""
    rows, reader = open_rows(job.train_view, root=run.root / "cache_root", identity=job.identity)
    (found,) = reader.iter_blocks(rows, [np.arange(len(rows))])
    return found


def told_of(job: TrainJob, run: FakeRun) -> list[TeacherRecord]:
    """The same rows as the teacher answered them."""
    view = NarrowedView.load(job.train_view).view
    (found,) = open_cache(run.config, run.teacher()).iter_blocks(view, [np.arange(len(view))])
    return found


def prompts_of(records: list[TeacherRecord]) -> Prompts:
    return {tuple(record.token_ids[: record.prompt_len].tolist()) for record in records}


def asked_to_fill(run: FakeRun) -> list[str]:
    return [call for pool in run.compute.pools for call in pool.called if call.startswith("fill")]


def test_the_teacher_is_asked_more_and_students_read_less(tmp_path: Path) -> None:
    run = fake_run(tmp_path, **KIND)
    report = go(run)
    assert report is not None and "The teacher's context adds " in run.said and asked_to_fill(run) == ["fill 7"]
    (job,) = run.compute.jobs
    train = run.prompts(run.teacher()).splits["train"]
    own, told = read_by(job, run), told_of(job, run)
    assert prompts_of(own) == {each.prompt_ids for each in train}
    assert prompts_of(told) == {each.asked_ids for each in train} and not prompts_of(told) & prompts_of(own)
    for ours, theirs in zip(own, told, strict=True):
        assert ours.response_ids.tolist() == theirs.response_ids.tolist()
        assert np.array_equal(ours.topk_ids, theirs.topk_ids)  # type: ignore[arg-type]
    assert report.results.prompts == ("test 0", "test 1")
    assert [row.name for row in report.results.models] == ["teacher", "untouched", "kd"]


def test_a_second_run_asks_nothing_and_another_context_asks_anew_beside_it(tmp_path: Path) -> None:
    assert go(fake_run(tmp_path, **KIND)) is not None
    for blocks, asked in (
        (KIND, []),
        ({"teacher_context": {"system_prompt": "Be rude."}}, ["fill 7"]),
        ({}, ["fill 7"]),
    ):
        run = fake_run(tmp_path, **blocks)
        assert go(run) is not None
        assert asked_to_fill(run) == asked and len(run.compute.jobs) == len(asked)
    # The answers to all three lie in one cache, each under what the teacher saw.
    again = fake_run(tmp_path, **KIND)
    assert go(again) is not None and asked_to_fill(again) == [] and "nothing to ask" in again.said


def test_worked_examples_passages_and_neighbours_reach_the_teacher_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "answer": f"a{n}", "text": f"f{n}"} for n in range(4)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("dev", "test"):
        held_out = [{"prompt": f"{split} {n}", "answer": "a", "text": "f"} for n in range(2)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    splits = {split: {"path": str(tmp_path / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    run = fake_run(
        tmp_path,
        teacher_context={"examples": {"count": 1}, "passage_field": "text", "neighbours": {"before": 1}},
        data=splits | {"response_field": "answer", "template": "raw", "max_prompt_tokens": 16},
    )
    assert go(run) is not None
    (job,) = run.compute.jobs
    tokenizer = run.teacher().files.tokenizer
    own = {tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts_of(read_by(job, run))}
    told = sorted(tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts_of(told_of(job, run)))
    assert own == {"q0", "q1", "q2", "q3"}
    shown = {text[:4] for text in told}
    assert len(shown) == 2 and shown <= {f"q{n}a{n}" for n in range(4)}
    assert sorted(text[6:] for text in told) == sorted(
        f"Passage:\nf{n}\n\n" + (f"Before:\nq{n - 1}\n\n" if n else "") + f"q{n}" for n in range(4)
    )


def test_answers_that_take_turns_are_found_by_what_the_teacher_saw(tmp_path: Path) -> None:
    stages = [STAGE | {"views": 2}, STAGE | {"views": 2, "filters": {"min_tokens": LEAST}}]
    run = fake_run(
        tmp_path,
        students={"kd": {"init": {"keep_layers": 1}, "stages": stages}},
        generation={"temperature": 1.0, "max_new_tokens": 12, "samples_per_prompt": 2},
        **KIND,
    )
    assert go(run) is not None
    turned, sifted = run.compute.jobs
    train = run.prompts(run.teacher()).splits["train"]
    records = read_by(turned, run)
    assert turned.turns is not None and len(records) == 6
    for epoch in range(2):
        read = [records[row] for row in Turns.load(turned.turns).of(epoch)]
        assert len(read) == 3 and prompts_of(read) == {each.prompt_ids for each in train}
    kept = {record.key for record in read_by(sifted, run)}
    assert kept == {record.key for record in records if record.response_len >= LEAST} and len(kept) < 6


def test_a_student_that_teaches_is_asked_what_students_see(tmp_path: Path) -> None:
    students = {
        "middle": {"init": {"keep_layers": 1}, "stages": [STAGE]},
        "small": {"init": {"keep_layers": 1}, "teacher": "middle", "stages": [STAGE | {"seed": 3}]},
    }
    run = fake_run(tmp_path, students=students, **KIND)
    assert go(run) is not None
    train = run.prompts(run.teacher()).splits["train"]
    from_teacher, from_middle = run.compute.jobs
    for job in (from_teacher, from_middle):
        assert prompts_of(read_by(job, run)) == {each.prompt_ids for each in train}
    assert CacheView.load(from_middle.train_view).k == 4  # as it answered them, behind no other prompts


def test_a_comparison_rests_on_what_the_teacher_saw(tmp_path: Path) -> None:
    run = fake_run(tmp_path, **KIND)
    assert go(run) is not None
    directories = {"teacher.model": run.teacher().files.directory}
    rests_on = rested_on(run.config, directories=directories, starts=[], students=[], run_dir=run.settings.directory)
    assert {Path(name).suffix for name in rests_on.views} == {".narrowed"} and len(rests_on.views) == 3
    where: dict[str, Any] = {"run_dir": run.settings.directory, "artifacts": run.settings.artifacts}
    assert what_broke(rests_on, config=run.config, **where) is None
    for segments in (tmp_path / "cache_root").rglob("segments"):
        segments.rename(segments.with_name("lost"))
    broken = what_broke(rests_on, config=run.config, **where)
    assert broken is not None and broken.startswith("what the teacher said is not all there any more")
