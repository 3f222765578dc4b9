"""What an experiment reads before anything is paid for: what is set aside, found and said of its rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from guard_models import PlainEngine, guard_config, save_guard
from pipeline_builders import SHAPE, experiment, fake_run, go, namespace
from screening_builders import find_digits
from task_files import write_task

from configs import ConfigError, DataError, DistillConfig
from orchestration.cluster.engines import TimedAnswers
from orchestration.commands.plan import print_plan
from orchestration.inputs.rows import split_rows
from orchestration.inputs.screen import Screened
from orchestration.inputs.wide_prompts import Widened
from orchestration.outputs.foundations import content_of
from orchestration.pipeline import reading
from orchestration.pipeline.experiment import Experiment, run_experiment
from orchestration.pipeline.reading import FoundInData
from orchestration.pipeline.run import Written
from orchestration.pipeline.workers import Workers


def test_rows_that_are_set_aside_are_named(tmp_path: Path) -> None:
    rows = [{"prompt": "short"}, {"prompt": "long " * 20}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None and report.results.rows_set_aside == 1
    (rejected,) = (run.settings.directory / "rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["row"] == 1
    assert "! 1 rows set aside in" in run.said and "the first: train row 1" in run.said


def test_a_task_that_cannot_be_read_ends_a_run_before_anything_is_asked(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", rows={"train": [], "dev": [], "test": []})
    run = fake_run(tmp_path, evaluation={"tasks": ["tasks/task.yaml"]})
    with pytest.raises(DataError, match=r"task\.yaml: data\.train.* is empty"):
        go(run)
    assert run.compute.called == []


def test_a_run_reads_screened_data_and_says_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    config = experiment(tmp_path, privacy={"prompts": "redact"})
    (tmp_path / "train.jsonl").write_text('{"prompt": "call 555"}\n{"prompt": "train 1"}\n{"prompt": "train 2"}\n')
    written = content_of(config, config_dir=tmp_path)
    read: list[str] = []

    def noted(real: DistillConfig, **named: Any) -> Widened:
        read.extend(row["prompt"] for _, row in split_rows(real.data.splits["train"], split="train"))
        raise ConfigError("enough")

    monkeypatch.setattr(reading, "read_prompts", noted)
    with pytest.raises(ConfigError, match="enough"):
        run_experiment(config, config_dir=tmp_path, until="fill")
    assert read == ["call <PHONE_1>", "train 1", "train 2"]
    assert content_of(config, config_dir=tmp_path) == written, "the data themselves are left as they are"


def test_what_was_found_in_the_data_is_said_tracked_and_reported(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    found = {"train": Screened(3, {"PHONE": 2}, 0, 1)}
    written = Written(run.config, run.root, content_of(run.config, config_dir=run.root))
    parts = Experiment(written, run.settings, run.journal, run.compute, found=FoundInData(found))
    report = parts.run(until="eval").report
    line = "data.train: 3 rows looked at: 2 PHONE; 1 left out."
    assert line in run.said and report is not None and line in report.results.notes
    told = {name: value for values in run.tracker.of("final", "fill") for name, value in values[1].items()}
    assert told["screened/data.train/found/PHONE"] == 2.0 and told["screened/data.train/dropped"] == 1.0


def test_a_plan_counts_what_is_found_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    config = experiment(tmp_path, privacy={"prompts": "drop"})
    (tmp_path / "train.jsonl").write_text('{"prompt": "call 555"}\n{"prompt": "train 1"}\n{"prompt": "train 2"}\n')
    stream = io.StringIO()
    print_plan(config, config_dir=tmp_path, assume_gpus=None, stream=stream)
    assert "data.train: 3 rows looked at: 1 PHONE; 1 left out." in stream.getvalue()
    assert not (tmp_path / "run_root" / "screened").exists()


def test_a_guard_judges_the_data_of_a_run_and_a_plan_says_what_it_has_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = guard_config(save_guard(tmp_path / "guard")).model_dump(mode="json")
    config = experiment(tmp_path, content={"guard": guard})
    for split, words in {
        "train": ["tea", "tea bomb", "rain"],
        "dev": ["sun", "river"],
        "test": ["salad", "piano"],
    }.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"prompt": word}) + "\n" for word in words))
    stream = io.StringIO()
    print_plan(config, config_dir=tmp_path, assume_gpus=None, stream=stream)
    assert "7 texts of the data were not put to the guard yet" in stream.getvalue()
    engine = PlainEngine(tmp_path / "guard")
    pool = namespace(
        answer=lambda requests, k: TimedAnswers(tuple(engine.answer(requests)), 1.0, "a fake"), release=engine.rest
    )
    monkeypatch.setattr(Workers, "new_pool", lambda workers, spec: pool)
    monkeypatch.setattr(Workers, "need_cluster", lambda workers: None)
    read: list[Any] = []

    def noted(real: DistillConfig, **named: Any) -> Widened:
        read.extend(row for _, row in split_rows(real.data.splits["train"], split="train"))
        raise ConfigError("enough")

    monkeypatch.setattr(reading, "read_prompts", noted)
    for _ in range(2):
        with pytest.raises(ConfigError, match="enough"):
            run_experiment(config, config_dir=tmp_path, until="fill")
    assert read[:3] == [{"prompt": "tea"}, "the guard finds it unsafe (0.5 or more)", {"prompt": "rain"}]
    assert engine.asked == [3, 2, 2] and engine.rested, "a second run asks nothing"
    stream = io.StringIO()
    print_plan(config, config_dir=tmp_path, assume_gpus=None, stream=stream)
    assert "3 rows looked at: nothing private; 1 are not wanted (1 by what the guard says); 1 left out." in " ".join(
        stream.getvalue().split()
    )
    assert "not put to the guard" not in stream.getvalue() and "judges texts and teaches nobody" in stream.getvalue()


def test_planted_canaries_are_read_said_and_written_into_the_card(tmp_path: Path) -> None:
    limits = {"max_model_len": 64, "max_batched_tokens": 64, "count": 1}
    run = fake_run(
        tmp_path,
        audit={"canaries": {"count": 6, "repeats": [1]}},
        generation={"temperature": 0.0, "max_new_tokens": 6},
        runtime={"teacher_engine": limits, "student_engine": limits},
    )
    with pytest.raises(ConfigError, match=r"audit.canaries: 6 of 6 planted rows cannot be used"):
        go(run, until="fill")
    wide = {"max_model_len": 192, "max_batched_tokens": 192, "count": 1}
    shape = SHAPE.model_copy(update={"max_positions": 192})
    splits = {split: {"path": str(tmp_path / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    run = fake_run(
        tmp_path,
        audit={"canaries": {"count": 6, "repeats": [1]}},
        data={**splits, "max_prompt_tokens": 128},
        teacher={"model": {"random": shape.model_dump(), "seed": 0}, "dtype": "float32", "top_k": 4},
        runtime={"teacher_engine": wide, "student_engine": wide},
    )
    go(run, until="fill")
    line = "data.train: 6 rows with canaries stand behind its 3 rows"
    assert line in " ".join(run.said.split())
    card = (run.settings.directory / "data-card.md").read_text()
    assert "Source: train.jsonl" in card and line in card
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 3, "nobody's file is touched"
