"""Experiments with several teachers: each is asked for its own cache, and students learn what they believe together."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from task_heads import save_classifier, save_span_finder
from task_pipeline_builders import STAGE, TASK, TEXTS, TRANSFER, TaskPlace, task_place

from configs import ConfigError, ModelError
from configs.task import TaskConfig
from orchestration.comparison.text_speed import Timed
from orchestration.inputs.task_mixture import require_mixable
from orchestration.inputs.tasks import LoadedTask
from orchestration.pipeline.tasks import comparing
from orchestration.pipeline.tasks.comparison import compare_task_models
from orchestration.pipeline.tasks.teachers import TOGETHER
from student_train.feed.examples import ExampleSet

SOFT = STAGE | {"objective": "soft_labels", "temperature": 2.0}
MIXTURE = {"kind": "mixture", "weights": {"teacher": 3.0, "contrary": 1.0}}
ROUTE = {"kind": "route", "field": "town", "to": {"oslo": "teacher", "none": "contrary"}}


def two(root: Path, *, combine: dict[str, Any] | None = None, **values: Any) -> TaskPlace:
    """An experiment with a second teacher, whose labels stand in another order, and which says the opposite."""
    root.mkdir(exist_ok=True)
    place = task_place(root, **values)
    save_classifier(root / "contrary", labels=("bad", "good"))
    place.values["teacher"] |= {"licence": "apache-2.0"}
    place.values["teachers"] = {"contrary": {"model": {"path": str(root / "contrary")}, "max_tokens": 16}}
    place.values["combine"] = combine
    place.values["evaluation"] = {"gold_baseline": False}
    return place


def write_towns(root: Path, *, wrong: str | None = None) -> None:
    """The rows with a field that says whether the text speaks of Oslo."""
    for name, texts in {**TEXTS, "transfer": TRANSFER}.items():
        rows = [
            {
                "text": text,
                "label": "good" if text.startswith("sun") else "bad",
                "town": "oslo" if "oslo" in text else wrong or "none",
            }
            for text in texts
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(logits)) / temperature) for value in logits]
    return [power / math.fsum(powers) for power in powers]


def test_each_is_asked_once_and_students_learn_the_mean_of_their_softened_probabilities(tmp_path: Path) -> None:
    place = two(tmp_path, combine=MIXTURE)
    place.values["students"]["bag"]["stages"] = [SOFT]
    ended = place.go("train")
    # Six train texts, three to transfer on, two of dev and two of test, for what they answer together.
    assert place.called == ["check 2", "fill 13", "release"] * 2
    assert ended.teacher_tokens > 0 and len(list((tmp_path / "cache").iterdir())) == 2
    (job,) = place.workers.jobs
    learned = ExampleSet.load(job.train_examples)
    (tmp_path / "alone").mkdir()
    alone = task_place(tmp_path / "alone")
    alone.values["students"]["bag"]["stages"] = [SOFT]
    alone.go("train")
    first = ExampleSet.load(alone.workers.jobs[0].train_examples)
    assert learned.teacher is not None and first.teacher is not None
    for mixed, own in zip(learned.teacher.tolist(), first.teacher.tolist(), strict=True):
        p, contrary = softened(own, 2.0), softened(own[::-1], 2.0)
        expected = [0.75 * a + 0.25 * b for a, b in zip(p, contrary, strict=True)]
        assert softened(mixed, 2.0) == pytest.approx(expected, abs=1e-6)
    assert (job.teacher, job.licence) == (
        f"{tmp_path / 'teacher'} + {tmp_path / 'contrary'}",
        "teacher: apache-2.0; contrary: not stated",
    )
    assert f"contrary ({tmp_path / 'contrary'}) with weight 0.25" in job.combined
    views = {path.relative_to(place.run.directory).as_posix() for path in place.run.directory.rglob("*.npz")}
    assert {"views/train.npz", "views/contrary/train.npz", "views/contrary/test.npz"} <= views


def test_a_teacher_that_was_asked_alone_before_is_found_again(tmp_path: Path) -> None:
    task_place(tmp_path).go("fill")
    place = two(tmp_path)
    place.go("fill")
    # Of the first the two test texts are new.
    assert place.called == ["check 2", "fill 2", "release", "check 2", "fill 13", "release"]
    again = two(tmp_path, combine=MIXTURE)
    again.go("fill")
    assert again.called == ["release", "release"], "other weights cost no token"


def test_other_weights_are_other_students_and_equal_beliefs_the_same(tmp_path: Path) -> None:
    two(tmp_path, combine=MIXTURE).go("train")
    again, other = two(tmp_path, combine=MIXTURE), two(tmp_path)
    again.go("train")
    other.go("train")
    assert again.workers.jobs == [] and len(other.workers.jobs) == 1


def test_a_second_teacher_is_tuned_for_itself(tmp_path: Path) -> None:
    place = two(tmp_path)
    place.values["teachers"]["contrary"] |= {"prepare": [{"objective": "hard_labels", "epochs": 1.0}]}
    place.go("fill")
    (job,) = place.workers.jobs
    assert job.model_dir != tmp_path / "teacher" and job.teacher == str(tmp_path / "contrary")
    assert len(place.tracker.of("child", "contrary prepared")) == 1


def test_they_stand_in_the_table_alone_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untimed = partial(compare_task_models, timed=lambda models, texts, log: Timed({}, dict.fromkeys(models, "no time")))
    monkeypatch.setattr(comparing, "compare_task_models", untimed)
    ended = two(tmp_path, combine=MIXTURE).go("eval")
    assert ended.report is not None
    results = ended.report.results
    together, first, contrary, _ = results.models
    assert [row.name for row in (together, first, contrary)] == [TOGETHER, "teacher", "contrary"]
    assert [row.role for row in results.models] == ["teacher", "teacher", "teacher", "student"]
    said = {row.name: [example.predicted for example in row.tasks[0].examples] for row in results.models[:3]}
    assert said["teacher"] == said[TOGETHER] == [("good",), ("bad",)] and said["contrary"] == [("bad",), ("good",)]
    (sure, _), (less, _) = first.tasks[0].examples, together.tasks[0].examples
    p = sure.confidence
    assert less.confidence == pytest.approx(0.75 * p + 0.25 * (1 - p), abs=1e-5)
    assert together.parameters == first.parameters + contrary.parameters
    provenance = results.provenance
    assert provenance.teacher_licence == "teacher: apache-2.0; contrary: not stated"
    assert "with weight 0.75" in results.notes[0] and set(ended.report.rests_on.models) >= {"teachers.contrary.model"}


def test_where_rows_are_routed_each_is_asked_about_its_own(tmp_path: Path) -> None:
    place = two(tmp_path, combine=ROUTE)
    write_towns(tmp_path)
    place.go("train")
    # Three texts of train and transfer speak of Oslo; no text of dev or test does.
    assert place.called == ["check 2", "fill 3", "release", "check 2", "fill 10", "release"]
    learned = ExampleSet.load(place.workers.jobs[0].train_examples)
    assert learned.teacher is not None
    # The first finds a text good that begins with the sun, the other one bad.
    good = [text.startswith("sun") == ("oslo" in text) for text in TEXTS["train"]]
    assert (learned.teacher[:6].argmax(axis=1) == 0).tolist() == good
    assert "each row has one teacher" in place.said


def test_a_value_without_a_teacher_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    place = two(tmp_path, combine=ROUTE)
    write_towns(tmp_path, wrong="rome")
    with pytest.raises(ConfigError, match=r"combine.to has no teacher for town='rome', which row 0 of train has"):
        place.go("fill")
    assert place.called == []
    bare = two(tmp_path / "bare", combine=ROUTE)
    with pytest.raises(ConfigError, match=r"combine.field=town: row 0 of train has none"):
        bare.go("fill")


def task_with_spans() -> LoadedTask:
    config = TaskConfig.model_validate(
        TASK
        | {
            "kind": "extractive_qa",
            "fields": {"context": "passage", "answers": "answers"},
            "labels": None,
            "template": "{{ text }}",
        }
    )
    return LoadedTask(config, *[None] * 5)  # type: ignore[arg-type]  # it is asked for its kind alone


def test_answers_in_a_passage_are_mixed_by_one_tokenizer_alone(tmp_path: Path) -> None:
    place = two(tmp_path)
    for name in ("teacher", "contrary"):
        save_span_finder(tmp_path / name)
    require_mixable(place.config, task_with_spans())
    tokenizer = tmp_path / "contrary/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"##rain"', '"##snow"'))
    with pytest.raises(ConfigError, match=r"teachers.contrary \(.*\) has another tokenizer than teacher \("):
        require_mixable(place.config, task_with_spans())
    place.values["teachers"]["contrary"] |= {"max_tokens": 8}
    with pytest.raises(ConfigError, match=r"teachers.contrary.max_tokens=8 and teacher.max_tokens=16"):
        require_mixable(place.config, task_with_spans())


def test_a_second_teacher_with_other_labels_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    place = two(tmp_path)
    save_classifier(tmp_path / "contrary", labels=("bad", "fine"))
    with pytest.raises(ModelError, match="has the labels bad, fine, and task moods has good, bad"):
        place.go("fill")
    assert place.called == []
