"""What a student took to train, as it is kept with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import namespace
from results_builders import finished_run

from configs.places import CURVES
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.training_cost import FIELD, NOT_SAID, Stopwatch, Took, training_of, with_training

DIGESTS = ("a" * 64, "b" * 64)


def student(root: Path, *summaries: dict[str, object]) -> Any:
    """A student whose stages kept this, each with a loss at two steps."""
    artifacts, links = Artifacts(root), []
    for digest, summary in zip(DIGESTS, summaries, strict=False):
        folder = artifacts.student_dir(digest)
        folder.mkdir(parents=True)
        lines = ['{"step": 0, "values": {"dev/loss": 2.0}}', '{"step": 1, "values": {"dev/loss": 1.5}}']
        (folder / CURVES).write_text("\n".join(lines) + "\n")
        artifacts.keep_student(digest, summary)
        links.append(namespace(digest=digest, output_dir=folder))
    return namespace(links=tuple(links))


def test_a_watch_says_what_passed() -> None:
    times, joules = iter([10.0, 25.0]), iter([100.0, 160.0])
    watch = Stopwatch.start(lambda: next(joules), clock=lambda: next(times))
    took = watch.took(begun_at=watch.asked_at + 4.0, trained_on="2 workers")
    assert took == Took(15.0, pytest.approx(4.0), 60.0, "2 workers")
    assert Took.of({FIELD: json.loads(json.dumps(took.kept()))}) == took


def test_what_nobody_measured_is_not_kept() -> None:
    watch = Stopwatch.start(lambda: math.nan, clock=lambda: 0.0)
    assert watch.took(begun_at=None, trained_on="2 workers").kept() == {"seconds": 0.0, "trained_on": "2 workers"}
    assert Took().kept() == {}


def test_a_first_step_before_the_question_is_another_machines_clock() -> None:
    watch = Stopwatch.start(lambda: math.nan, clock=lambda: 0.0)
    assert watch.took(begun_at=watch.asked_at - 1.0, trained_on="2 workers").start_seconds == 0.0


def test_stages_add_up_and_their_curves_follow_each_other(tmp_path: Path) -> None:
    took = {"seconds": 15.0, "joules": 60.0, "trained_on": "2 workers"}
    made = student(tmp_path, {"tokens": 100, FIELD: took}, {"tokens": 20, FIELD: took})
    found = training_of(made.links, artifacts=Artifacts(tmp_path))
    assert found is not None
    assert (found.seconds, found.tokens, found.joules, found.trained_on) == (30.0, 120, 120.0, "2 workers")
    assert found.curves == {"dev/loss": ((0, 2.0), (1, 1.5), (2, 2.0), (3, 1.5))}


def test_one_that_was_trained_before_anybody_counted(tmp_path: Path) -> None:
    found = training_of(student(tmp_path, {"tokens": 100}).links, artifacts=Artifacts(tmp_path))
    assert found is not None and found.tokens == 100 and found.trained_on == NOT_SAID
    assert math.isnan(found.seconds) and math.isnan(found.joules)


def test_a_student_that_is_gone_took_nothing_that_is_known(tmp_path: Path) -> None:
    made = student(tmp_path, {"tokens": 100})
    (made.links[0].output_dir / CURVES).unlink()
    said: list[str] = []
    assert training_of(made.links, artifacts=Artifacts(tmp_path, say=said.append)) is None
    assert said


@pytest.mark.parametrize("took", ["much", 7, None])
def test_what_is_kept_may_be_anything(tmp_path: Path, took: object) -> None:
    found = training_of(student(tmp_path, {"tokens": 1, FIELD: took}).links, artifacts=Artifacts(tmp_path))
    assert found is not None and math.isnan(found.seconds)


def test_rows_of_students_have_their_training_and_no_other_row_has_one(tmp_path: Path) -> None:
    made = student(tmp_path, {"tokens": 100, FIELD: {"seconds": 1.0, "joules": 2.0, "trained_on": "2 workers"}})
    made.name = "kd"
    rows = finished_run(prompts=1, students={"kd": "kd"}).models
    found = {row.name: row.training for row in with_training(rows, [made], artifacts=Artifacts(tmp_path))}
    assert found.pop("kd") == training_of(made.links, artifacts=Artifacts(tmp_path))
    assert set(found.values()) == {None}
