"""Files are made once for the same sources, settings and companions, and every row keeps its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from screening_builders import find_digits

from configs import DataError
from configs.data import SplitConfig
from configs.screening import PrivacyConfig
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs.rows import Row, split_rows
from orchestration.inputs.screened_files import ScreenedFiles, ScreenedSource, ScreenSettings, screen_files
from orchestration.inputs.screened_row import RowForm, RowLooks, every_text

REDACTED = ScreenSettings(PrivacyConfig(prompts="redact"), None)


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_digits(monkeypatch)
    for name in ("some", "more"):
        lines = [{"text": "555 and 777"}, {"text": "none"}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def screened(root: Path, settings: ScreenSettings = REDACTED, form: RowForm = every_text, **more: Any) -> ScreenedFiles:
    sources = {name: ScreenedSource(SplitConfig(path=root / f"{name}.jsonl"), form) for name in ("some", "more")}
    found = screen_files(sources, settings, root=root / "screened", say=lambda line: None, **more)
    assert found is not None
    return found


def test_a_value_has_one_placeholder_in_all_sources(tmp_path: Path) -> None:
    found = screened(tmp_path)
    for name in ("some", "more"):
        assert dict(split_rows(found.of(name), split=name))[0] == {"text": "<PHONE_1> and <PHONE_2>"}
        assert found.splits[name].found == {"PHONE": 2}


def test_a_row_that_its_form_refuses_is_left_out_with_that_reason(tmp_path: Path) -> None:
    def form(row: Row, looks: RowLooks) -> Row:
        looks.text(row["text"])
        if row["text"] == "none":
            raise UnfitRowError("it is not wanted")
        return row

    found = screened(tmp_path, form=form)
    assert dict(split_rows(found.of("some"), split="some"))[1] == "it is not wanted"
    assert (found.splits["some"].looked, found.splits["some"].dropped) == (2, 1)


def test_what_lies_beside_the_rows_decides_with_them(tmp_path: Path) -> None:
    plain, one, two = (
        screened(tmp_path),
        screened(tmp_path, beside={"a.txt": "1"}),
        screened(tmp_path, beside={"a.txt": "2"}),
    )
    assert len({plain.folder, one.folder, two.folder}) == 3
    assert (two.folder / "a.txt").read_text() == "2"
    assert screened(tmp_path, beside={"a.txt": "1"}) == one


def test_nothing_is_read_where_nothing_is_looked_for(tmp_path: Path) -> None:
    off = ScreenSettings(PrivacyConfig(prompts="off", answers="count"), None)
    sources = {"some": ScreenedSource(SplitConfig(path=tmp_path / "nowhere.jsonl"))}
    assert screen_files(sources, off, root=tmp_path, say=lambda line: None) is None
    with pytest.raises(DataError, match="the data cannot be screened"):
        screen_files(sources, REDACTED, root=tmp_path, say=lambda line: None)


def test_counts_that_somebody_changed_are_not_believed(tmp_path: Path) -> None:
    (screened(tmp_path).folder / "counts.json").write_text('{"some": {"looked": 1}}')
    with pytest.raises(DataError, match=r"screened data cannot be used .* delete it and run again"):
        screened(tmp_path)
