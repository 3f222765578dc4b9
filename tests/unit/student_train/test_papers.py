"""What goes with a student that is given away, and what keeps it from that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs import ConfigError, ModelError
from student_train.papers import (
    Papers,
    TaughtUnder,
    asks_for_company,
    papers_beside,
    papers_carried,
    publish,
    teachers_of,
    write_papers,
)

LICENCE = {"LICENSE.txt": b"the licence"}
POLICY = {"USE_POLICY.md": b"the policy"}
CARD = "---\nlicense: llama3.1\n---\n\n# Student of big\n\nTrained for 3 steps.\n"


def student(place: Path, *papers: Papers) -> Path:
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "README.md").write_text(CARD, encoding="utf-8")
    write_papers(place, papers)
    return place


def of(licence: str | None, files: dict[str, bytes] | None = None, *, name: str = "teacher", **facts: object) -> Papers:
    taught = TaughtUnder(name=name, label="big", licence=licence, **facts)  # type: ignore[arg-type]
    return Papers(taught, {} if files is None else files)


def test_a_student_says_under_what_its_teachers_were_used(tmp_path: Path) -> None:
    both = of("mit", LICENCE, began=True), of(None, name="second", override="agreed")
    model = student(tmp_path / "student", *both)
    assert teachers_of(model) == tuple(each.teacher for each in both)
    assert (model / "licences" / "teacher" / "LICENSE.txt").read_bytes() == b"the licence"


def test_a_student_of_a_free_teacher_is_given_away_as_it_is(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("apache-2.0"))
    assert publish(model, tmp_path / "out" / "small") == ()
    given = tmp_path / "out" / "small"
    assert (given / "model.safetensors").read_bytes() == b"weights"
    assert (given / "README.md").read_text().startswith("---\nlicense: llama3.1\n---\n\n# small\n")
    assert "\nStudent of big.\n\nTrained for 3 steps." in (given / "README.md").read_text()
    assert not (given / "NOTICE").exists() and not asks_for_company(model)
    assert (model / "README.md").read_text() == CARD


def test_weights_of_a_free_teacher_go_with_its_licence(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("apache-2.0", began=True))
    with pytest.raises(ConfigError, match=r"apache-2\.0 asks for a copy of the licence of big: put it at .*/LICENSE$"):
        publish(model, tmp_path / "small")
    (model / "licences" / "teacher" / "LICENSE").write_text("the licence")
    publish(model, tmp_path / "small")
    assert (tmp_path / "small" / "licences" / "teacher" / "LICENSE").read_text() == "the licence"


def test_a_student_of_llama_has_a_name_a_notice_and_the_papers(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("llama3.1", LICENCE | {"NOTICE": b"their notice\n"}))
    with pytest.raises(ConfigError) as raised:
        publish(model, tmp_path / "small")
    said = str(raised.value)
    assert "llama3.1 asks for a name like Llama-small: call it so" in said
    assert (
        "asks for a copy of the acceptable use policy of big: put it at" in said and "copy of the licence" not in said
    )
    assert not (tmp_path / "small").exists()
    (model / "licences" / "teacher" / "USE_POLICY.md").write_text("the policy")
    (terms,) = publish(model, tmp_path / "Llama-small")
    assert "700 million" in terms
    notice = (tmp_path / "Llama-small" / "NOTICE").read_text()
    assert notice.startswith("Llama 3.1 is licensed under the Llama 3.1 Community License")
    assert notice.endswith("\n\ntheir notice\n")
    assert "# Llama-small\n\n**Built with Llama**\n" in (tmp_path / "Llama-small" / "README.md").read_text()
    assert asks_for_company(model)


def test_the_duties_of_several_teachers_are_united(tmp_path: Path) -> None:
    model = student(
        tmp_path / "student",
        of("gemma", LICENCE),
        of("llama3.3", LICENCE | POLICY, name="other"),
        of("mit", name="free"),
    )
    terms = publish(model, tmp_path / "Llama-small")
    notice = (tmp_path / "Llama-small" / "NOTICE").read_text()
    assert "Gemma is provided under" in notice and "Llama 3.3 is licensed" in notice
    assert terms[0] == "it is a derivative of its teacher, under its licence" and len(terms) == 3


@pytest.mark.parametrize("files", [{}, POLICY])
def test_a_derivative_without_the_licence_is_not_given_away(tmp_path: Path, files: dict[str, bytes]) -> None:
    model = student(tmp_path / "student", of("gemma", files))
    with pytest.raises(ConfigError, match="cannot be given away as small yet: gemma asks for a copy of the licence"):
        publish(model, tmp_path / "small")


def test_a_reason_stands_in_the_place_of_duties_and_goes_along(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("llama2", override="agreed with its owner"))
    publish(model, tmp_path / "small")
    (taught,) = teachers_of(tmp_path / "small")
    assert taught.override == "agreed with its owner"


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("mit"))
    (tmp_path / "small").mkdir()
    with pytest.raises(ConfigError, match="is there already: name a folder that is not"):
        publish(model, tmp_path / "small")


@pytest.mark.parametrize("spoilt", [None, "", "{", "[{}]", '[{"name": "x", "label": "y", "extra": 1}]'])
def test_a_student_that_does_not_say_who_taught_it_is_not_given_away(tmp_path: Path, spoilt: str | None) -> None:
    model = student(tmp_path / "student", of("mit"))
    record = model / "licences" / "teachers.json"
    if spoilt is None:
        record.unlink()
    else:
        record.write_text(spoilt)
    with pytest.raises(ModelError, match="does not say who taught"):
        publish(model, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_nothing_is_known_of_a_model_that_was_not_trained_here(tmp_path: Path) -> None:
    assert not asks_for_company(student(tmp_path / "student"))


def test_the_papers_beside_a_model_are_found_and_are_plain_files(tmp_path: Path) -> None:
    for name in ("LICENSE.txt", "USE_POLICY.md", "NOTICE", "COPYING", "tokenizer.json", "README.md"):
        (tmp_path / name).write_text(name)
    assert set(papers_beside(tmp_path)) == {"LICENSE.txt", "USE_POLICY.md", "NOTICE", "COPYING"}
    (tmp_path / "LICENCE").mkdir()
    with pytest.raises(ModelError, match="put the licence there as a plain file"):
        papers_beside(tmp_path)


def test_what_cannot_be_copied_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    model = student(tmp_path / "student", of("mit"))
    os.mkfifo(model / "pipe")
    with pytest.raises(ConfigError, match="cannot be copied to"):
        publish(model, tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_what_the_student_began_with_is_asked_for_as_a_teacher_is(tmp_path: Path) -> None:
    begun = of("apache-2.0", name="_start", began=True, taught=False)
    model = student(tmp_path / "student", of("mit"), begun)
    with pytest.raises(ConfigError, match=r"apache-2\.0 asks for a copy of the licence of big: put it at .*_start/LIC"):
        publish(model, tmp_path / "small")
    (model / "licences" / "_start" / "LICENSE").write_text("the licence")
    assert publish(model, tmp_path / "small") == ()


@pytest.mark.parametrize("licence", [None, "zlib"])
def test_an_unknown_licence_of_a_start_is_said_to_whoever_gives_the_student_away(
    tmp_path: Path, licence: str | None
) -> None:
    model = student(tmp_path / "student", of("mit"), of(licence, name="_start", began=True, taught=False))
    (line,) = publish(model, tmp_path / "small")
    assert line == "nothing is known of the licence of big, with whose weights it began: find out what it asks"


def test_nothing_is_unknown_of_weights_that_are_nobodys_and_taught(tmp_path: Path) -> None:
    assert not of(None, began=True).teacher.unknown
    assert publish(student(tmp_path / "student", of(None, began=True)), tmp_path / "small") == ()


def test_papers_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    both = of("gemma", LICENCE), of("mit", {}, name="second")
    assert papers_carried(student(tmp_path / "student", *both)) == both
    assert papers_carried(student(tmp_path / "other")) == ()
