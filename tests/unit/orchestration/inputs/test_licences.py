"""Teachers whose licence lets students learn, refuses them, or is not known: from the configuration and from cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_cards import save_card

from configs import ConfigError, DistillConfig, load_config
from configs.models import ModelSource
from orchestration.inputs.licences import licences_in_words, papers_of, with_licences

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"

SHAPE = {"layers": 1, "hidden": 8, "heads": 2, "kv_heads": 2, "mlp": 16, "vocab": 32}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def experiment(model: Path, **teacher: Any) -> DistillConfig:
    said = load_config(TINY).model_dump(mode="json", exclude_unset=True)
    said["teacher"] = {"model": {"path": str(model)}, "top_k": 16} | teacher
    return DistillConfig.model_validate(said)


def passed(config: DistillConfig) -> DistillConfig:
    return with_licences(config, fetch=True)


def test_the_card_says_what_the_configuration_does_not(model: Path) -> None:
    save_card(model, licence="mit")
    config = passed(experiment(model))
    assert (config.teacher.licence, config.licence_of_teachers) == ("mit", "mit")
    assert licences_in_words(config) == ()


def test_without_either_nothing_is_asked_of_the_teacher(model: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        passed(experiment(model))
    assert "nothing says under which licence" in str(raised.value)
    assert "set teacher.licence to" in str(raised.value) and "teacher.licence_override" in str(raised.value)


@pytest.mark.parametrize("card", ["llama2", "openai-terms", "zlib", "made-up"])
def test_a_licence_that_refuses_students_or_is_not_known_is_refused_with_its_clause(model: Path, card: str) -> None:
    save_card(model, licence=card)
    with pytest.raises(
        ConfigError, match=rf"is under {card}, and no student may learn from it \(.*: .*\): choose another"
    ):
        passed(experiment(model))
    with pytest.raises(ConfigError, match=f"is under {card}, and no student may learn"):
        passed(experiment(model, licence=card))


def test_a_card_that_contradicts_the_configuration_is_refused_with_both(model: Path) -> None:
    save_card(model, licence="llama3.1")
    with pytest.raises(
        ConfigError, match=r"teacher\.licence=apache-2\.0, and the card of .* says llama3\.1: set it to"
    ):
        passed(experiment(model, licence="apache-2.0"))


def test_two_names_of_one_licence_agree(model: Path) -> None:
    save_card(model, licence="llama3.1")
    config = passed(experiment(model, licence="LicenseRef-scancode-llama-3.1-license-2024"))
    assert config.teacher.licence == "LicenseRef-scancode-llama-3.1-license-2024"


@pytest.mark.parametrize("card", [None, "llama2", "mit"])
def test_a_reason_overrides_and_stands_wherever_the_licence_stands(model: Path, card: str | None) -> None:
    if card is not None:
        save_card(model, licence=card)
    config = passed(experiment(model, licence_override="agreed with its owner, 2026-11"))
    said = f"{card or 'not stated'} (used all the same: agreed with its owner, 2026-11)"
    assert config.licence_of_teachers == said
    (line,) = licences_in_words(config)
    assert line.startswith("teacher: ") and line.endswith(f"is used under {said}")


def test_duties_of_students_are_told_before_anything_is_asked(model: Path) -> None:
    save_card(model, licence="other", name="gemma")
    (line,) = licences_in_words(passed(experiment(model)))
    assert "is under gemma, and so of every student: a copy of the licence goes with it; a notice" in line


def test_each_teacher_has_its_licence(model: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "config.json").write_text("{}", encoding="utf-8")
    save_card(model, licence="mit")
    said = experiment(model).model_dump(mode="json", exclude_unset=True)
    said["teachers"] = {"second": {"model": {"path": str(second)}, "top_k": 16}}
    two = DistillConfig.model_validate(said)
    with pytest.raises(ConfigError, match=r"set teachers\.second\.licence to"):
        passed(two)
    save_card(second, licence="llama3.3")
    config = passed(two)
    assert config.licence_of_teachers == "teacher: mit; second: llama3.3"
    (line,) = licences_in_words(config)
    assert line.startswith("teachers.second: ")


def test_weights_from_a_seed_need_no_licence() -> None:
    config = load_config(TINY)
    assert passed(config) == config and licences_in_words(config) == ()


def test_a_plan_waits_for_the_card_of_a_model_that_is_not_here() -> None:
    said = load_config(TINY).model_dump(mode="json", exclude_unset=True)
    said["teacher"] = {"model": {"hub": "nobody/has-this"}, "top_k": 16}
    config = DistillConfig.model_validate(said)
    assert with_licences(config, fetch=False).teacher.licence is None


def test_a_student_takes_along_what_lies_beside_its_teachers(model: Path) -> None:
    save_card(model, licence="mit")
    (model / "LICENSE").write_text("the licence")
    config = passed(experiment(model))
    (papers,) = papers_of(config, begins_with=None)
    assert papers.files == {"LICENSE": b"the licence"}
    assert (papers.teacher.label, papers.teacher.licence, papers.teacher.began) == (str(model), "mit", True)
    random = ModelSource.model_validate({"random": SHAPE})
    assert not papers_of(config, begins_with=random)[0].teacher.began


def test_of_a_file_in_a_package_the_licence_of_the_package_goes_along() -> None:
    config = load_config(TINY.parent / "quickstart.yaml")
    (papers,) = papers_of(passed(config), begins_with=None)
    assert b"Apache License" in papers.files["LICENSE"]


def test_weights_from_a_seed_bring_nothing() -> None:
    (papers,) = papers_of(passed(load_config(TINY)), begins_with=None)
    assert (papers.teacher.licence, papers.files) == (None, {})


def test_a_student_that_begins_as_another_teacher_has_its_papers_once(model: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "config.json").write_text("{}", encoding="utf-8")
    save_card(save_card(model, licence="mit").parent / "second", licence="apache-2.0")
    said = experiment(model).model_dump(mode="json", exclude_unset=True)
    said["teachers"] = {"second": {"model": {"path": str(second)}, "top_k": 16}}
    config = passed(DistillConfig.model_validate(said))
    both = papers_of(config, begins_with=config.teachers["second"].model)
    assert [(each.teacher.name, each.teacher.began) for each in both] == [("teacher", False), ("second", True)]


def test_plan_and_report_have_the_lines_of_teachers_and_of_starts(model: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "config.json").write_text("{}", encoding="utf-8")
    save_card(model, licence="llama3.1")
    save_card(start, licence="apache-2.0")
    said = experiment(model).model_dump(mode="json", exclude_unset=True)
    (name, *_) = said["students"]
    said["students"][name]["init"] = {"model": {"path": str(start)}}
    config = passed(DistillConfig.model_validate(said))
    assert [line.split(":")[0] for line in licences_in_words(config)] == ["teacher", f"students.{name}.init.model"]
    papers = papers_of(config, begins_with=config.students[name].begins_with)
    assert [(each.teacher.label, each.teacher.began) for each in papers] == [(str(model), False), (str(start), True)]
