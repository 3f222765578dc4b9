"""A text is forgotten wherever it lies: in every cache, however a teacher answers, in runs and what they rest on; and
nothing brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import SHAPE, FakeRun, fake_run, go
from task_heads import save_classifier
from task_pipeline_builders import STAGE, TaskPlace, spoken_place, task_place

from cache.erasures import FORGOTTEN, Erasures
from cache.views import CacheView
from configs import dump_config
from orchestration.cache_tools import forgetting
from orchestration.cache_tools.forgetting import Forgotten, forget_text
from orchestration.cache_tools.text_patterns import TextPattern


def forgotten(place: TaskPlace, text: str, *, remove: bool = False) -> Forgotten:
    return forget_text(place.config, config_dir=place.root, pattern=TextPattern(text), remove=remove, break_pins=remove)


def asked_again(place: TaskPlace) -> str:
    """What the engines are told to fill in another run over the same texts."""
    place.called.clear()
    place.go("fill")
    return " ".join(line for line in place.called if line.startswith("fill"))


def test_signals_of_texts_are_forgotten_and_no_others(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("fill")
    found = forgotten(place, "oslo")
    assert len(found.sequences) == 3 and not found.removed
    assert forgotten(place, "oslo", remove=True).sequences == found.sequences
    assert forgotten(place, "oslo").sequences == ()
    assert asked_again(place) == "", "three texts are forgotten, and of the others everything is there"
    assert "3 rows of the data were forgotten and are left out" in place.stream.getvalue()


@pytest.mark.parametrize(("answers", "rows"), [("labels", 6), ("text", 3)])
def test_answers_of_a_language_model_are_forgotten_with_their_questions(
    answers: str, rows: int, tmp_path: Path
) -> None:
    place = spoken_place(tmp_path, answers=answers, stage={"objective": "hard_labels", "labels": "teacher"})
    place.go("fill")
    if answers == "text":
        assert forgotten(place, "clearly").sequences, "what it wrote is searched, not the question alone"
    assert len(forgotten(place, "oslo", remove=True).sequences) == rows
    assert asked_again(place) == ""
    assert "rows of the data were forgotten and are left out" in place.stream.getvalue()


def test_every_tuning_of_a_teacher_is_searched_and_strangers_are_named(tmp_path: Path) -> None:
    stage = {key: value for key, value in STAGE.items() if key != "data"} | {"objective": "hard_labels"}
    place = task_place(tmp_path)
    place.values["teacher"]["prepare"] = [stage]
    place.go("fill")
    place.values["teacher"]["prepare"] = [stage, stage]
    place.go("fill")
    # The rows that the tuning was made of may be gone: they are what is to be forgotten.
    (tmp_path / "train.jsonl").write_text("")
    found = forgotten(place, "oslo", remove=True)
    assert len(found.sequences) == 6 and len(found.searched) == 3 and found.unsearched == ()
    del place.values["teacher"]["prepare"]
    untuned = forgotten(place, "rain")
    assert untuned.sequences == () and len(untuned.unsearched) == 2


def test_every_teacher_of_a_config_is_searched_once_it_was_asked(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.go("fill")
    save_classifier(tmp_path / "other", labels=("bad", "good"))
    place.values["teachers"] = {"other": {"model": {"path": str(tmp_path / "other")}, "max_tokens": 16}}
    assert len(forgotten(place, "oslo").searched) == 1
    place.go("fill")
    found = forgotten(place, "oslo", remove=True)
    assert len(found.searched) == 2 and found.unsearched == ()
    assert len(found.sequences) == 2 * 3
    assert asked_again(place) == ""


def test_every_teacher_of_a_language_model_is_searched_once_it_was_asked(tmp_path: Path) -> None:
    model = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    go(fake_run(tmp_path), until="fill")
    run = fake_run(tmp_path, teachers={"second": model})

    def found() -> Forgotten:
        pattern = TextPattern("train 0")
        return forget_text(run.config, config_dir=tmp_path, pattern=pattern, remove=False, break_pins=False)

    assert len(found().searched) == 1
    go(run, until="fill")
    both = found()
    assert len(both.searched) == 2 and both.unsearched == () and len(both.sequences) == 2


def erase(run: FakeRun, text: str, *, break_pins: bool = False) -> Forgotten:
    pattern = TextPattern(text)
    return forget_text(run.config, config_dir=run.root, pattern=pattern, remove=True, break_pins=break_pins)


def test_a_row_that_was_forgotten_is_not_asked_again_by_any_teacher_that_reads_it_so(tmp_path: Path) -> None:
    go(fake_run(tmp_path), until="fill")
    found = erase(fake_run(tmp_path), "train 0", break_pins=True)
    assert len(found.sequences) == 1 and found.names == 3
    later = fake_run(tmp_path)
    go(later, until="fill")
    assert "1 rows of the data were forgotten and are left out" in later.said
    rejected = (later.settings.directory / "rejected.jsonl").read_text()
    assert FORGOTTEN in rejected and "train 0" not in rejected
    model = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    other = fake_run(tmp_path, teacher=model)
    teacher = other.teacher()
    asked = other.asked(teacher, other.prompts(teacher))
    assert asked.plan.misses == 2 + 2 + 2, "of seven rows that it never saw, six are asked"


def test_files_views_and_students_of_runs_are_reached_or_named(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    go(run, until="train")
    (student,) = (tmp_path / "run_root" / "students").iterdir()
    view = run.settings.directory / "views" / "teacher-train.npz"
    (student / "README.md").write_text(f"Cache view (SHA-256): `{CacheView.load(view).digest}`")
    page = run.settings.directory / "report.html"
    page.write_text("train 0 and more")
    found = erase(run, "train 0")
    assert found.files == (str(page),) and not page.exists()
    assert found.lessons == (str(view),) and view.exists(), "it pins what others may read"
    assert found.students == (str(student),) and student.is_dir()
    assert found.kept_for_views
    assert erase(run, "train 0", break_pins=True).kept_for_views == ()
    assert not view.exists()


def test_an_erasure_that_stops_before_the_rows_are_gone_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    go(run, until="fill")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forgetting, "forget", interrupted)
        erase(run, "train 0")
    assert Erasures.read(tmp_path / "cache_root").names, "what is to go is remembered first"
    found = erase(run, "train 0", break_pins=True)
    assert len(found.sequences) == 1 and found.names == 0
    assert erase(run, "train 0").sequences == ()


def interrupted(*_: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_a_cache_of_another_run_is_searched_by_the_config_that_run_kept(tmp_path: Path) -> None:
    model = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    other = fake_run(tmp_path, teacher=model)
    go(other, until="fill")
    resolved = other.settings.directory / "resolved.yaml"
    run = fake_run(tmp_path)
    go(run, until="fill")
    assert len(erase(run, "nobody says this").unsearched) == 1
    resolved.write_text(dump_config(other.config))
    found = erase(run, "train 0", break_pins=True)
    assert (len(found.searched), found.unsearched, len(found.sequences)) == (2, (), 2)
