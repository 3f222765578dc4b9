"""A task experiment to its end, with models that are not timed: who is compared, and what is shown again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from task_pipeline_builders import STAGE, TaskPlace, task_place

from cache.disk.roots import open_storage
from orchestration.comparison.report import read_report, read_results
from orchestration.comparison.text_speed import Timed
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.foundations import what_broke
from orchestration.pipeline.tasks import comparing
from orchestration.pipeline.tasks.comparison import compare_task_models


@pytest.fixture()
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskPlace:
    untimed = partial(compare_task_models, timed=lambda models, texts, log: Timed({}, dict.fromkeys(models, "no time")))
    monkeypatch.setattr(comparing, "compare_task_models", untimed)
    return task_place(tmp_path)


def test_teacher_students_and_twins_stand_in_one_table(place: TaskPlace) -> None:
    ended = place.go("eval")
    assert ended.report is not None
    results = ended.report.results
    assert [(row.name, row.role, row.method) for row in results.models] == [
        ("teacher", "teacher", ""),
        ("bag", "student", "logit_mse"),
        ("bag-gold", "student", "hard_labels"),
    ]
    teacher = results.models[0]
    assert [example.predicted for example in teacher.tasks[0].examples] == [("good",), ("bad",)]
    assert results.models[1].training is not None
    assert repr(read_results(place.run.directory).models) == repr(results.models)
    assert (place.run.directory / "report.html").is_file() and (place.run.directory / "report.md").is_file()
    assert place.said.rstrip().splitlines()[-1].strip()
    assert results.provenance.teacher_identity in {
        path.name for path in Path(place.run.config.runtime.cache_root).iterdir() if path.is_dir()
    }


def test_a_report_holds_as_long_as_all_that_it_rests_on(place: TaskPlace) -> None:
    place.go("eval")
    run = place.run
    report = read_report(run.directory)
    assert report is not None

    def broken() -> str | None:
        artifacts = Artifacts(run.config.runtime.run_root)
        return what_broke(report.rests_on, config=run.config, run_dir=run.directory, artifacts=artifacts)

    assert broken() is None
    storage = open_storage(run.config.runtime.cache_root, report.results.provenance.teacher_identity, create=False)
    for name in storage.names("manifests"):
        storage.delete(f"manifests/{name}")
    assert "what the teacher said is not all there any more" in str(broken())


def test_a_student_that_begins_with_its_teachers_head_stands_beside_its_untouched_self(place: TaskPlace) -> None:
    place.values["students"]["encoder"] = {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [STAGE]}
    ended = place.go("eval")
    assert ended.report is not None
    rows = ended.report.results.models
    assert [(row.name, row.role, row.start) for row in rows] == [
        ("teacher", "teacher", None),
        ("untouched", "untouched", None),
        ("bag", "student", None),
        ("bag-gold", "student", None),
        ("encoder", "student", "untouched"),
        ("encoder-gold", "student", "untouched"),
    ]
    assert not rows[1].failures, "nobody takes its time"


def test_layers_are_compared_where_that_is_asked_for(place: TaskPlace) -> None:
    rows = [{"text": text, "label": "good" if "sun" in text else "bad"} for text in ("sun", "rain", "oslo", "sun rome")]
    (place.root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place.values["evaluation"] = {"cka": True}
    place.values["students"]["encoder"] = {"start": {"kind": "transformer", "keep_layers": 1}, "stages": [STAGE]}
    ended = place.go("eval")
    assert ended.report is not None
    found = {row.name: row.likeness for row in ended.report.results.models}
    assert [name for name, likeness in found.items() if likeness is None] == ["teacher", "untouched"]
    for name, layers in {"bag": 2, "bag-gold": 2, "encoder": 2}.items():
        likeness = found[name]
        assert likeness is not None and (likeness.teacher, likeness.texts) == ("teacher", 4)
        assert (len(likeness.cka), len(likeness.cka[0])) == (2, layers)
    assert "beside teacher: CKA of their layers" in (place.run.directory / "report.md").read_text()
    assert repr(read_results(place.run.directory).models) == repr(ended.report.results.models)
