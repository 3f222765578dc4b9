"""Experiments with several teachers of a language model: what each is asked, and what students learn of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_builders import KD, SHAPE, FakeRun, experiment, fake_run, go, model_in
from transformers import AutoTokenizer

from cache import ScoreRequest, TeacherCache
from cache.combined import CombinedCache, CombinedView
from cache.mixing import mixed
from cache.protocols import Failure
from configs import BudgetReached, ConfigError
from orchestration.comparison.numbers import closeness_numbers
from orchestration.comparison.report import Report
from student_train.feed.turns import Turns
from student_train.job import TrainJob
from teacher_server import FakeTeacher

WEIGHTS = {"teacher": 3.0, "second": 1.0}
ROUTE = {"kind": "route", "field": "town", "to": {"oslo": "teacher", "none": "second"}}


def teacher(seed: int, **fields: Any) -> dict[str, Any]:
    return {"model": {"random": SHAPE.model_dump(), "seed": seed}, "dtype": "float32", "top_k": 4, **fields}


def two(
    root: Path,
    *,
    combine: dict[str, Any] | None = None,
    second: dict[str, Any] | None = None,
    top_k: int = 4,
    **blocks: Any,
) -> FakeRun:
    """A run with a second teacher, equally mixed unless it is said."""
    teachers = {"second": second or teacher(1, top_k=top_k)}
    first = teacher(0, licence="apache-2.0", top_k=top_k)
    return fake_run(root, teacher=first, teachers=teachers, combine=combine, **blocks)


MOST = 200
"""Of 261 tokens: fakes rank others first, and with fewer they agree on next to nothing."""


def weighed(**weights: float) -> dict[str, Any]:
    return {"kind": "mixture", "weights": WEIGHTS | weights}


def write_towns(root: Path, *, wrong: str | None = None) -> None:
    """The prompts of the experiment, each second one of Oslo."""
    for split, rows in {"train": 3, "dev": 2, "test": 2}.items():
        made = [{"prompt": f"{split} {at}", "town": "oslo" if at % 2 == 0 else (wrong or "none")} for at in range(rows)]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def dev_view(run: FakeRun) -> Path:
    (job,) = run.compute.jobs
    assert job.dev_view is not None
    return job.dev_view


def asked(run: FakeRun) -> list[list[str]]:
    """What the engines of each teacher were asked to fill."""
    return [[call for call in pool.called if call.startswith(("check", "fill"))] for pool in run.compute.pools]


def measured_in(report: Report | None) -> list[Any]:
    assert report is not None
    return [(row.name, row.closeness, row.answers) for row in report.results.models]


def learned(run: FakeRun, job: TrainJob) -> list[Any]:
    """The records that a job learns from, as a worker reads them."""
    view = CombinedView.load(job.train_view)
    (told,) = CombinedCache(run.config.runtime.cache_root, [view]).iter_blocks(view.rows, [np.arange(len(view.rows))])
    return told


def test_the_first_writes_and_the_others_score_what_it_wrote(tmp_path: Path) -> None:
    run = two(tmp_path, combine=weighed())
    report = go(run)
    assert report is not None
    assert asked(run)[:2] == [["check 2", "fill 7"], ["check 2", "fill 7"]]
    (job,) = run.compute.jobs
    view = CombinedView.load(job.train_view)
    assert [part.share for part in view.parts] == [0.75, 0.25]
    root = run.config.runtime.cache_root
    caches = [TeacherCache.open(root, part.identity, create=False) for part in view.parts]
    told = [next(cache.iter_blocks(part.view, [np.arange(3)])) for cache, part in zip(caches, view.parts, strict=True)]
    for record, own, other in zip(learned(run, job), *told, strict=True):
        assert np.array_equal(own.token_ids, other.token_ids) and own.key != other.key
        expected = mixed([own, other], shares=[0.75, 0.25])
        assert np.array_equal(record.topk_ids, expected.topk_ids)
        assert record.tail_logmass == pytest.approx(expected.tail_logmass)
    # Who is who, and under which licence, goes with the student and with the report.
    names = "random(seed=0) + random(seed=1)"
    assert (job.teacher, job.licence) == (names, "teacher: apache-2.0; second: not stated")
    assert [(each.teacher.name, each.teacher.licence, each.teacher.began) for each in job.papers] == [
        ("teacher", "apache-2.0", True),
        ("second", None, False),
    ]
    assert "second (random(seed=1)) with weight 0.25" in job.combined
    assert (report.results.provenance.teacher, report.results.provenance.teacher_licence) == (names, job.licence)
    held_against = f"what teacher answered, and what all teachers believe of it together ({job.combined})"
    assert held_against in report.results.held_against and report.results.held_against in " ".join(run.said.split())
    assert "On teacher-dev the tokens that all teachers rank have" in run.said
    # Held-out closeness is to what was learned.
    assert (
        report.results.provenance.cache_digest
        == CombinedView.load(run.settings.directory / "views/teacher-test.combined").digest
    )
    views = {
        path.relative_to(run.settings.directory / "views").as_posix() for path in run.settings.directory.rglob("*.npz")
    }
    assert {"teacher-train.npz", "second/teacher-train.npz", "second/teacher-test.npz"} <= views


def test_every_teacher_is_a_row_of_the_comparison(tmp_path: Path) -> None:
    run = two(tmp_path, combine=weighed(), top_k=MOST)
    report = go(run)
    assert report is not None
    rows = report.results.models
    assert [(row.name, row.role) for row in rows] == [
        ("teacher", "teacher"), ("second", "teacher"), ("untouched", "untouched"), ("kd", "student"),
    ]  # fmt: skip
    first, second = (closeness_numbers(row) for row in rows[:2])
    # The heavier teacher is nearer to their mean, and its answers are those that all believe something of.
    assert 0.0 < first["forward_kl"] < second["forward_kl"]
    assert first["rouge_l"] == 100.0 and second["rouge_l"] < 100.0
    assert f"teacher alone {first['forward_kl']:.4f} nats" in run.said
    assert f"second alone {second['forward_kl']:.4f} nats" in run.said and "noise floor" not in run.said
    children = [name for name, tags, _ in run.tracker.of("child") if tags["role"] == "teacher"]
    tracked = {name: values["eval/test/forward_kl"] for name, values in run.tracker.of("final") if name in children}
    assert tracked == {"teacher": first["forward_kl"], "second": second["forward_kl"]}
    # Engines of one end before those of the next one begin, and each is asked with its own weights.
    served = [pool.called[2:] for pool in run.compute.pools[:2]]
    assert all(each[-1] == "release" for each in served)
    assert all("answer 2 score" in each and "answer 2 write" in each for each in served)
    (tmp_path / "run_root" / "fake-run" / "report.json").unlink()
    again = two(tmp_path, combine=weighed(), top_k=MOST)
    assert repr(measured_in(go(again))) == repr(measured_in(report))
    assert again.compute.called == [] and asked(again) == [[], []]
    assert all(set(pool.called) == {"release"} for pool in again.compute.pools)


def test_other_weights_let_nobody_write_again(tmp_path: Path) -> None:
    go(two(tmp_path, combine=weighed(), top_k=MOST))
    again = two(tmp_path, combine=weighed(second=9.0), top_k=MOST)
    report = go(again)
    assert report is not None
    # What each teacher believes is held against another mean; its words are held against the same words.
    for pool in again.compute.pools[:2]:
        assert "answer 2 score" in pool.called and "answer 2 write" not in pool.called
    first, second = (closeness_numbers(row) for row in report.results.models[:2])
    assert first["forward_kl"] > second["forward_kl"] > 0.0 and first["rouge_l"] == 100.0 > second["rouge_l"]


def test_other_weights_cost_no_token_and_make_another_student(tmp_path: Path) -> None:
    first = two(tmp_path, combine=weighed())
    go(first, until="train")
    again = two(tmp_path, combine=weighed(second=3.0))
    go(again, until="train")
    assert asked(again) == [[], []] and again.compute.called == ["train kd"]
    assert "nothing to ask: every row is in the cache" in again.said
    ours, theirs = again.compute.jobs[0], first.compute.jobs[0]
    assert ours.output_dir != theirs.output_dir and ours.model_dir == theirs.model_dir
    same = two(tmp_path, combine=weighed())
    go(same, until="train")
    assert same.compute.called == []


def test_a_teacher_that_was_asked_alone_is_found_again(tmp_path: Path) -> None:
    go(fake_run(tmp_path, teacher=teacher(0)), until="fill")
    run = two(tmp_path)
    go(run, until="fill")
    assert asked(run) == [[], ["check 2", "fill 7"]]
    assert run.journal.ledger.counts().fill > 0
    # The same teacher under two names is asked once: its own sequences are scored already.
    twice = two(tmp_path, second=teacher(0))
    go(twice, until="fill")
    assert asked(twice) == [[], []]


def test_a_teacher_twice_is_learned_as_one(tmp_path: Path) -> None:
    run = two(tmp_path, second=teacher(0))
    go(run, until="train")
    alone = fake_run(tmp_path, teacher=teacher(0))
    teacher_alone = alone.teacher()
    lesson = alone.lesson(teacher_alone, alone.prompts(teacher_alone))
    (told,) = lesson.cache.iter_blocks(lesson.views["teacher-train"], [np.arange(3)])
    for ours, theirs in zip(learned(run, run.compute.jobs[0]), told, strict=True):
        # Tokens of equal probability may stand in another order.
        assert np.array_equal(np.sort(ours.topk_ids), np.sort(theirs.topk_ids))
        assert ours.topk_logprobs == pytest.approx(theirs.topk_logprobs, abs=1e-6)
        assert ours.tail_logmass == pytest.approx(theirs.tail_logmass, abs=1e-6)


def test_gold_answers_are_scored_by_all(tmp_path: Path) -> None:
    for split, rows in {"train": 3, "dev": 2, "test": 2}.items():
        made = [{"prompt": f"{split} {at}", "answer": "yes"} for at in range(rows)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    data = experiment(tmp_path).data.model_dump(mode="json", exclude_none=True) | {"response_field": "answer"}
    gold = {"s": {"init": {"keep_layers": 1}, "stages": [KD | {"source": "gold"}]}}
    run = two(tmp_path, data=data, students=gold)
    go(run, until="train")
    # Five gold answers, and the test prompts, which the second scores.
    assert asked(run) == [["check 2", "fill 2", "fill 5"], ["check 2", "fill 7"]]
    assert len(learned(run, run.compute.jobs[0])) == 3


def test_each_row_has_the_teacher_that_its_field_names(tmp_path: Path) -> None:
    write_towns(tmp_path)
    run = two(tmp_path, combine=ROUTE)
    report = go(run)
    assert report is not None
    # Of Oslo are two of train, one of dev and one of test.
    assert asked(run)[:2] == [["check 2", "fill 4"], ["check 2", "fill 3"]]
    (job,) = run.compute.jobs
    view = CombinedView.load(job.train_view)
    assert [(part.share, len(part.view)) for part in view.parts] == [(1.0, 2), (1.0, 1)]
    records = learned(run, job)
    assert [record.key for record in records] == [bytes(key) for key in view.rows.keys]
    assert all((record.topk_ids >= 0).all() for record in records)
    assert report.results.prompts == ("test 0", "test 1") and len(report.results.references) == 2
    assert "each row has one teacher: teacher (random(seed=0)) for town oslo" in run.said
    assert [row.name for row in report.results.models[:2]] == ["teacher", "second"]
    assert "what each row's own teacher answered and believes (each row has one" in report.results.held_against
    again = two(tmp_path, combine=ROUTE)
    assert go(again) is not None and again.compute.called == []


def test_turns_are_those_of_every_teachers_rows(tmp_path: Path) -> None:
    write_towns(tmp_path)
    views = {"s": {"init": {"keep_layers": 1}, "stages": [KD | {"views": 2}]}}
    generation = {"temperature": 1.0, "samples_per_prompt": 2, "max_new_tokens": 6}
    run = two(tmp_path, combine=ROUTE, students=views, generation=generation)
    go(run, until="train")
    (job,) = run.compute.jobs
    assert job.turns is not None
    table, rows = Turns.load(job.turns), CombinedView.load(job.train_view).rows
    assert table.rows.shape == (2, 3) and int(table.rows.max()) < len(rows)
    assert len(np.unique(table.rows)) == len(rows), "every answer has its turn"


def test_a_value_that_nobody_answers_ends_a_run_before_anything_is_asked(tmp_path: Path) -> None:
    write_towns(tmp_path, wrong="bergen")
    run = two(tmp_path, combine=ROUTE)
    with pytest.raises(ConfigError, match=r"combine\.to has no teacher for town='bergen', which row 1 of data\.train"):
        go(run)
    write_towns(tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"prompt": "dev 0"}\n')
    with pytest.raises(ConfigError, match=r"combine\.field=town: row 0 of data\.dev has none"):
        go(two(tmp_path, combine=ROUTE))
    (tmp_path / "dev.jsonl").write_text('{"prompt": "dev 0", "town": "oslo"}\n')
    (tmp_path / "train.jsonl").write_text('{"prompt": "train 0", "town": "oslo"}\n')
    with pytest.raises(ConfigError, match=r"combine\.to sends no row of data\.train to second"):
        go(two(tmp_path, combine=ROUTE))
    assert all(pool.called == [] for pool in run.compute.pools)


def test_a_split_of_one_teacher_alone_is_learned_too(tmp_path: Path) -> None:
    write_towns(tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"prompt": "dev 0", "town": "none"}\n')
    (tmp_path / "test.jsonl").write_text('{"prompt": "test 0", "town": "oslo"}\n')
    run = two(tmp_path, combine=ROUTE)
    go(run, until="train")
    assert asked(run) == [["check 2", "fill 3"], ["check 2", "fill 2"]]
    assert [len(CombinedView.load(path).parts) for path in (run.compute.jobs[0].train_view, dev_view(run))] == [2, 1]


def test_other_vocabularies_are_refused_with_both_sides(tmp_path: Path) -> None:
    directory = shutil.copytree(model_in(tmp_path, seed=1), tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(directory)
    run = two(tmp_path, second=teacher(1) | {"model": {"path": str(directory)}})
    words = r"teachers\.second \(.*/other\) has another vocabulary than teacher .* id 261 is '<more>', .* 261 no token"
    with pytest.raises(ConfigError, match=words):
        go(run)
    assert run.compute.called == [] and run.compute.pools == []


def test_what_another_teacher_cannot_score_is_not_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = two(tmp_path)
    score = FakeTeacher.score

    def refusing(self: FakeTeacher, requests: Any, *, k: int) -> Any:
        noted: list[ScoreRequest] = []

        def each() -> Any:
            for one in requests:
                noted.append(one)
                yield one

        for at, outcome in score(self, each(), k=k):
            first = noted[at].token_ids[: noted[at].prompt_len]
            yield at, Failure("too hard") if first == hardest else outcome

    prompts = run.prompts(run.teacher())
    hardest = prompts.splits["train"][0].prompt_ids
    with monkeypatch.context() as patched:
        patched.setattr(FakeTeacher, "score", refusing)
        go(run, until="train")
    assert len(learned(run, run.compute.jobs[0])) == 2
    (row,) = map(json.loads, (run.settings.directory / "rejected.jsonl").read_text().splitlines())
    assert (row["split"], row["row"], row["reason"]) == ("train", 0, "second: too hard")
    again = two(tmp_path)
    go(again, until="train")
    assert asked(again) == [[], []] and again.compute.called == []


def test_a_budget_is_over_all_teachers(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = fake_run(tmp_path / "alone")
    go(alone, until="fill")
    tokens = alone.journal.ledger.counts().fill
    run = two(tmp_path, budgets={"max_teacher_tokens": tokens + 10})
    with pytest.raises(BudgetReached, match=r"raise budgets\.max_teacher_tokens"):
        go(run, until="fill")
    assert asked(run)[0] == ["check 2", "fill 7"] and len(asked(run)) == 2


def test_a_mixture_that_knows_little_is_warned_of(tmp_path: Path) -> None:
    run = two(tmp_path)
    go(run, until="fill")
    # Two fakes agree on next to nothing.
    assert "! On teacher-dev the tokens that all teachers rank have" in run.said
    assert "raise top_k of the teachers" in run.said
    same = two(tmp_path, second=teacher(0))
    go(same, until="fill")
    assert ("raise top_k" in same.said) == ("! On teacher-dev" in same.said)
