"""A package's names are found in the modules that define them, no earlier than they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from configs.later import names_found_later

FOLDER = "a_folder_of_later_names"


def test_a_module_is_imported_when_a_name_of_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER / "below").mkdir(parents=True)
    (tmp_path / FOLDER / "below" / "shelf.py").write_text("jar = 'salt'\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = names_found_later(FOLDER, {"jar": "below.shelf"})
    assert f"{FOLDER}.below.shelf" not in sys.modules
    try:
        assert found("jar") == "salt"
        assert f"{FOLDER}.below.shelf" in sys.modules
    finally:
        for name in [name for name in sys.modules if name.startswith(FOLDER)]:
            del sys.modules[name]


@pytest.mark.parametrize("package", ["configs", "cache", "student_train"])
def test_an_unknown_name_of_a_package_is_an_attribute_error(package: str) -> None:
    __import__(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'lesson'"):
        sys.modules[package].lesson  # noqa: B018 - asking is the test
