"""The public names of the package are found where they are defined, when they are asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import student_train


@pytest.mark.parametrize("name", student_train.__all__)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    found = getattr(student_train, name)
    assert found.__name__ == name
    assert found.__module__ == f"student_train.{student_train._MODULES[name]}"


def test_what_is_promised_what_is_found_and_what_the_type_checker_sees_are_the_same_names() -> None:
    source = ast.parse(Path(student_train.__file__).read_text(encoding="utf-8"))
    seen = {
        (alias.name, node.module)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("student_train.")
        for alias in node.names
    }
    assert seen == {(name, f"student_train.{module}") for name, module in student_train._MODULES.items()}
    assert sorted(student_train.__all__) == sorted(student_train._MODULES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'student_train' has no attribute 'lesson'"):
        student_train.lesson  # noqa: B018 - asking is the test
