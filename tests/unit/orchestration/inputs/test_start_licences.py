"""What students owe to a model that they begin with and that is not their teacher, and what is said of an unknown one."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_cards import save_card

from configs import ConfigError, DistillConfig, ModelError, load_config
from configs.loading import load_experiment
from configs.models import ModelSource
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.licences import with_licences
from orchestration.inputs.start_licences import (
    fetch_start_papers,
    licence_with_start,
    papers_of_assistants,
    papers_of_start,
    starts_in_words,
)
from student_train.papers import Papers, TaughtUnder, write_papers

CONFIGS = Path(__file__).resolve().parents[4] / "configs"


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def experiment(init: dict[str, object]) -> DistillConfig:
    """The tiny experiment with one student, which begins so."""
    said = load_config(CONFIGS / "tiny.yaml").model_dump(mode="json", exclude_unset=True)
    student = next(iter(said["students"].values()))
    said["students"] = {"small": student | {"init": init}}
    return DistillConfig.model_validate(said)


def began(folder: Path) -> DistillConfig:
    return experiment({"model": {"path": str(folder)}})


def papers(config: DistillConfig) -> tuple[Papers, ...]:
    return papers_of_start(config, config.students["small"].begins_with)


def test_weights_of_another_model_bring_its_licence_and_its_papers(start: Path) -> None:
    save_card(start, licence="apache-2.0")
    (start / "LICENSE").write_text("the licence")
    config = began(start)
    (begun,) = papers(config)
    assert begun.teacher == TaughtUnder(name="_start", label=str(start), licence="apache-2.0", began=True, taught=False)
    assert begun.files == {"LICENSE": b"the licence"} and begun.teacher.duties.licence_copy
    (line,) = starts_in_words(config)
    assert line == (
        f"students.small.init.model: {start} is under apache-2.0, and so of small: a copy of the licence goes with it"
    )


def test_a_licence_that_lets_no_other_model_learn_does_not_forbid_to_begin_with_it(start: Path) -> None:
    save_card(start, licence="llama3")
    config = with_licences(began(start), fetch=True)
    (begun,) = papers(config)
    assert begun.teacher.duties.name_prefix == "Llama-3" and not begun.teacher.unknown
    (line,) = starts_in_words(config)
    assert "is under llama3, and so of small: its name begins with Llama-3" in line


@pytest.mark.parametrize(
    ("card", "said"), [(None, "not stated"), ("zlib", "zlib"), ("made of (", "not stated"), ("other", "not stated")]
)
def test_of_an_unknown_licence_it_is_said_that_it_is_unknown(start: Path, card: str | None, said: str) -> None:
    if card is not None:
        save_card(start, licence=card)
    config = with_licences(began(start), fetch=True)
    (line,) = starts_in_words(config)
    assert line == (
        f"students.small.init.model: nothing is known of the licence of {start} ({said}): find out what it asks "
        "before small is given away"
    )
    (begun,) = papers(config)
    assert begun.teacher.unknown


def test_a_student_of_a_task_owes_the_same(start: Path) -> None:
    save_card(start, licence="mit")
    said = load_experiment(CONFIGS / "recipes" / "self-distillation.yaml").model_dump(mode="json", exclude_unset=True)
    (name, student), *_ = said["students"].items()
    said["students"] = {name: student | {"start": {"kind": "transformer", "model": {"path": str(start)}}}}
    config = TaskDistillConfig.model_validate(said)
    (line,) = starts_in_words(config)
    assert line.startswith(f"students.{name}.start.model: {start} is under mit, and so of {name}: a copy")


def test_a_teacher_that_a_student_begins_with_is_named_as_that_alone() -> None:
    config = load_experiment(CONFIGS / "recipes" / "self-distillation.yaml")
    assert isinstance(config, TaskDistillConfig)
    assert any(student.begins_with == config.teacher.model for student in config.students.values())
    assert list(starts_in_words(config)) == []
    assert papers_of_start(config, config.teacher.model) == ()


@pytest.mark.parametrize("init", [{"keep_layers": 1}, {"model": "random"}])
def test_what_is_cut_from_the_teacher_or_drawn_from_a_seed_brings_nothing(init: dict[str, object]) -> None:
    if "model" in init:
        shape = {"layers": 1, "hidden": 8, "heads": 2, "kv_heads": 2, "mlp": 16, "vocab": 32}
        init = {"model": {"random": shape}}
    config = experiment(init)
    assert papers(config) == () and list(starts_in_words(config)) == []


def test_a_student_that_was_made_here_hands_its_papers_on(start: Path) -> None:
    save_card(start, licence="mit")
    taught = TaughtUnder(name="teacher", label="big", licence="llama3.1")
    free = TaughtUnder(name="second", label="free", licence="mit", began=True)
    write_papers(start, [Papers(taught, {"LICENSE": b"of llama"}), Papers(free, {"COPYING": b"of the other"})])
    config = began(start)
    first, second = papers(config)
    assert first == Papers(taught.model_copy(update={"name": "_start1"}), {"LICENSE": b"of llama"})
    assert second == Papers(free.model_copy(update={"name": "_start2"}), {"COPYING": b"of the other"})
    lines = list(starts_in_words(config))
    assert [line.split(" is under ")[0] for line in lines] == [
        "students.small.init.model: big",
        "students.small.init.model: free",
    ]
    assert "its name begins with Llama;" in lines[0]


def test_papers_that_name_a_folder_elsewhere_are_refused(start: Path) -> None:
    (start / "licences").mkdir()
    (start / "licences" / "teachers.json").write_text('[{"name": "../..", "label": "x", "licence": "mit"}]')
    with pytest.raises(ModelError, match="does not say who taught"):
        papers(began(start))


def test_of_a_model_that_is_not_here_a_plan_says_nothing_and_a_run_fetches_its_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = experiment({"model": {"hub": "nobody/has-this"}})
    assert list(starts_in_words(config)) == []
    with pytest.raises(ModelError, match="nobody/has-this"):
        fetch_start_papers(config)


def test_the_card_of_a_student_names_both_licences_where_they_differ() -> None:
    def of(licence: str | None, name: str = "_start") -> Papers:
        return Papers(TaughtUnder(name=name, label="x", licence=licence))

    assert licence_with_start("mit", [of("apache-2.0", "teacher")]) == "mit"
    assert licence_with_start("mit", [of("mit")]) == "mit"
    assert licence_with_start("mit", [of("gemma")]) == "mit; start: gemma"
    assert licence_with_start(None, [of("mit", "_start1"), of(None, "_start2")]) == (
        "not stated; start: mit and not stated"
    )


def test_a_model_in_a_package_has_the_papers_of_its_package() -> None:
    source = load_config(CONFIGS / "quickstart.yaml").teacher.model
    config = experiment({"model": source.model_dump(mode="json", exclude_unset=True)})
    (begun,) = papers_of_start(config, ModelSource.model_validate(source.model_dump()))
    assert b"Apache License" in begun.files["LICENSE"] and begun.teacher.unknown


def taught_by_assistant(folder: Path, **assistant: object) -> DistillConfig:
    """The tiny experiment with an assistant that begins with a model of its own, and a student that it teaches."""
    said = load_config(CONFIGS / "tiny.yaml").model_dump(mode="json", exclude_unset=True)
    student = next(iter(said["students"].values()))
    init = {"model": {"path": str(folder)}}
    said["students"] = {
        "middle": student | {"init": init} | assistant,
        "small": student | {"init": {"keep_layers": 1}, "teacher": "middle"},
    }
    return DistillConfig.model_validate(said)


def test_an_assistant_does_not_teach_what_its_start_lets_nobody_learn(start: Path) -> None:
    save_card(start, licence="llama2")
    with pytest.raises(ConfigError) as raised:
        with_licences(taught_by_assistant(start), fetch=True)
    assert str(raised.value).startswith(
        f"students.middle.init.model: {start} is under llama2, and small would learn from what middle says ("
    )
    assert "begin middle with another model, or leave students.small.teacher out" in str(raised.value)
    with_licences(began(start), fetch=True)  # who teaches nobody may begin with it


def test_who_learns_from_an_assistant_owes_what_its_start_asks_of_others(start: Path) -> None:
    save_card(start, licence="llama3.3")
    config = with_licences(taught_by_assistant(start), fetch=True)
    (owed,) = papers_of_assistants(config, "small")
    assert owed.teacher.name == "_assistant1" and owed.teacher.taught and not owed.teacher.began
    assert owed.teacher.duties.name_prefix == "Llama" and papers_of_assistants(config, "middle") == ()
    of_middle, of_small = starts_in_words(config)
    assert "and so of middle: its name begins with Llama" in of_middle
    assert "students.middle.init.model: and so of those that it teaches (small): its name begins" in of_small


def test_an_assistant_of_unknown_licence_is_named_and_not_refused(start: Path) -> None:
    config = with_licences(taught_by_assistant(start), fetch=True)
    (owed,) = papers_of_assistants(config, "small")
    assert owed.teacher.unknown
    *_, line = starts_in_words(config)
    assert line == "students.middle.init.model: whether middle may teach small stands in that licence as well"
