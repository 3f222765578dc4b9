from __future__ import annotations

import pytest

from configs.teachers import (
    Combination,
    TeacherMixture,
    TeacherRoute,
    combined_in_words,
    is_stated,
    require_combined,
    shares_of,
    united_licences,
    unless_unused,
)


def mixture(**weights: float) -> TeacherMixture:
    return TeacherMixture(kind="mixture", weights=weights or None)


def route(**to: str) -> TeacherRoute:
    return TeacherRoute(kind="route", field="language", to=to)


def test_shares_sum_to_one_and_are_equal_unless_weights_are_given() -> None:
    assert shares_of(["large", "small"], None) == pytest.approx({"teacher": 1 / 3, "large": 1 / 3, "small": 1 / 3})
    assert shares_of(["large"], mixture(large=1.0, teacher=3.0)) == {"teacher": 0.75, "large": 0.25}
    assert list(shares_of(["large"], mixture(large=1.0, teacher=3.0))) == ["teacher", "large"]
    assert shares_of([], None) == {"teacher": 1.0}


@pytest.mark.parametrize(
    ("others", "combine", "reason"),
    [
        (["teacher"], None, "teachers.teacher has a name that another row of the comparison has"),
        (["lstm"], None, "teachers.lstm has a name"),
        ([], mixture(), "combine.kind=mixture combines several teachers, and teachers names none"),
        (["large"], mixture(large=1.0), "combine.weights is for large, and the teachers are teacher, large"),
        (["large"], mixture(large=1.0, teacher=1.0, tiny=2.0), "weights is for large, teacher, tiny"),
        (["large"], route(de="teacher", en="tiny"), "combine.to names tiny, and the teachers are teacher, large"),
        (["large"], route(de="teacher"), "combine.to sends no row to large"),
    ],
)
def test_teachers_that_do_not_go_together_are_refused(
    others: list[str], combine: Combination | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        require_combined(others, combine, taken={"lstm"})


@pytest.mark.parametrize("combine", [None, mixture(), mixture(large=2.0, teacher=1.0), route(de="teacher", en="large")])
def test_teachers_that_go_together(combine: Combination | None) -> None:
    require_combined(["large"], combine, taken={"lstm"})


def test_one_teacher_is_written_as_before_there_could_be_several() -> None:
    said = {"teacher": 1, "teachers": {}, "combine": None}
    assert unless_unused(said) == {"teacher": 1}
    assert unless_unused(said | {"teachers": {"large": 2}}) == {"teacher": 1, "teachers": {"large": 2}}


@pytest.mark.parametrize(
    ("licences", "united", "stated"),
    [
        ({"teacher": "MIT"}, "MIT", True),
        ({"teacher": None}, None, False),
        ({"teacher": "MIT", "large": "MIT"}, "MIT", True),
        ({"teacher": None, "large": None}, None, False),
        ({"teacher": "MIT", "large": "CC-BY-4.0"}, "teacher: MIT; large: CC-BY-4.0", True),
        ({"teacher": "MIT", "large": None}, "teacher: MIT; large: not stated", False),
    ],
)
def test_the_duties_of_all_licences_are_united(licences: dict[str, str | None], united: str, stated: bool) -> None:
    assert united_licences(licences) == united
    assert is_stated(united) is stated


def test_how_teachers_are_combined_is_said_with_their_labels() -> None:
    labels = {"teacher": "some/base", "large": "some/large"}
    assert combined_in_words({"teacher": "some/base"}, [], None) == ""
    assert combined_in_words(labels, ["large"], mixture(teacher=3.0, large=1.0)) == (
        "teachers are mixed in probability space: teacher (some/base) with weight 0.75; large (some/large) with weight "
        "0.25"
    )
    assert combined_in_words(labels, ["large"], route(de="large", en="teacher", fr="large")) == (
        "each row has one teacher: teacher (some/base) for language en; large (some/large) for language de, fr"
    )
